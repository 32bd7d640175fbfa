"""AdaGC against the authors' code, NumPy, and its own promises."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_clip import AdaGC, ClippedOptimizer
from tests.reference import ada_gc as reference
from tests.support.clipped_stream import ClippedStream, shared_stream
from tests.support.gradient_stream import (
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.norm_streams import SHAPES, assert_gradients_close, gradients_of_norms, norms
from tests.support.vector_files import load, steps

pytestmark = pytest.mark.exhaustive  # arithmetic, the same on every Keras

LOCAL = [name for name, case in load("adagc.npz")[1].items() if case["scope"] == "tensor"]


def norms_of(gradients):
    return [float(np.linalg.norm(np.float64(g).ravel())) for g in gradients]


def scaled(gradients, wanted):
    """The gradients, with these norms."""
    pairs = zip(gradients, norms_of(gradients), wanted, strict=True)
    return [np.float64(g) * (w / n if n else 0.0) for g, n, w in pairs]


def gammas(clipper):
    return [float(g) for g in clipper.gamma.numpy()]


@pytest.mark.parametrize("case", LOCAL)
def test_equals_the_authors_code(case):
    archive, cases = load("adagc.npz")
    arguments = {key: v for key, v in cases[case].items() if key not in ("n", "scope", "T")}
    inputs, expected = steps(archive, f"{case}/"), steps(archive, f"{case}/", "o")
    stream = ClippedStream(AdaGC(**arguments), [np.shape(g) for g in inputs[0]])
    living = [i for i in range(3) if archive[f"{case}/gamma"][-1][i] > 0]
    for t, gradients in enumerate(inputs):
        clipped = stream.clip(gradients)
        assert_close([clipped[i] for i in living], [expected[t][i] for i in living], rtol=2e-5)
        gamma = archive[f"{case}/gamma"][t]
        assert [gammas(stream.clipper)[i] for i in living] == pytest.approx(
            [gamma[i] for i in living], rel=2e-5
        )
    dead = [i for i in range(3) if i not in living]
    assert len(dead) == (1 if case == "dead_var" else 0)
    for i in dead:
        assert not expected[-1][i].any()
        assert clipped[i].any()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from([0, 3]),
    st.sampled_from([0.5, 1.04, 2.0]),
    st.sampled_from([0.0, 1e-3, 1.0, 1e10]),
    st.lists(st.tuples(norms, norms, norms), min_size=1, max_size=10),
)
def test_any_stream_equals_numpy(start, clip_ratio, max_norm, generated):
    stream = shared_stream(AdaGC, SHAPES, start_clip_steps=start)
    stream.clipper.clip_ratio = clip_ratio
    stream.clipper.max_norm = max_norm
    oracle = reference.AdaGC(3, clip_ratio, start_clip_steps=start, max_norm=max_norm)
    for each in generated:
        gradients = gradients_of_norms(each)
        clipped = stream.clip(gradients)
        wanted = oracle.norms_after(norms_of(gradients))
        # float32 may decide differently, or round a small norm to zero.
        if oracle.margin < 1e-5 or any(0 < number < 1e-36 for number in [*wanted, *oracle.gamma]):
            return
        known = [0.0 if gamma == math.inf else gamma for gamma in oracle.gamma]
        assert gammas(stream.clipper) == pytest.approx(known, rel=1e-5)
        assert_gradients_close(clipped, scaled(gradients, wanted))


@pytest.mark.parametrize("start", [0, 3])
def test_a_zero_gradient_silences_no_variable(start):
    stream = shared_stream(AdaGC, SHAPES, start_clip_steps=start)
    stream.clipper.max_norm = 1e9
    for _ in range(2):
        stream.clip(gradients_of_norms([1.0, 0.0, 2.0]))
    gamma = gammas(stream.clipper)
    assert gamma == pytest.approx([1.0, 0.0, 2.0], rel=1e-6)
    for _ in range(4):
        stream.clip(gradients_of_norms([0.0, 0.0, 0.0]))
    assert gammas(stream.clipper) == gamma
    gradients = gradients_of_norms([1.0, 3.0, 2.0])
    assert_identical(stream.clip(gradients), gradients)
    assert gammas(stream.clipper) == pytest.approx([1.0, 3.0, 2.0], rel=1e-6)


def test_at_or_below_its_limit_bit_for_bit():
    stream = ClippedStream(AdaGC(start_clip_steps=1, max_norm=10.0), SHAPES)
    for norm in (1.0, 1.03, 0.3, 1.01):
        gradients = gradients_of_norms([norm, norm, norm])
        assert_identical(stream.clip(gradients), gradients)


def test_variables_without_a_gradient_keep_their_gamma():
    variables = make_variables()
    clipper = AdaGC(start_clip_steps=2)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    optimizer.build(variables)
    oracle = reference.AdaGC(4, start_clip_steps=2)
    orders = [[0, 1, 2, 3], [2, 0], [3, 1], [1, 2, 3, 0], [2], [0, 3, 1], [1, 2]]
    for present, gradients in zip(orders, gradient_stream(len(orders)), strict=True):
        every = norms_of(gradients)
        oracle.norms_after([every[i] if i in present else None for i in range(4)])
        chosen = [variables[i] for i in present]
        with_gap = [gradients[i] for i in present]
        apply_all(optimizer, chosen, [with_gap])
        assert gammas(clipper) == pytest.approx(oracle.gamma, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
def test_none_among_the_gradients():
    variables = make_variables()
    clipper = AdaGC(start_clip_steps=0)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    first, second = gradient_stream(2)
    apply_all(optimizer, variables, [first])
    before = gammas(clipper)
    apply_all(optimizer, variables, [[None, *second[1:]]])
    after = gammas(clipper)
    assert after[0] == before[0]
    assert all(one != other for one, other in zip(after[1:], before[1:], strict=True))


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_gradient_changes_no_gamma(bad, start):
    stream = shared_stream(AdaGC, SHAPES, start_clip_steps=start)
    for _ in range(2):
        stream.clip(gradients_of_norms([1.0, 0.0, 2.0]))
    before = values(stream.clipper.variables)
    stream.clip(gradients_of_norms([1.0, bad, 1.0]))
    assert_identical(values(stream.clipper.variables), before)


def test_counts_its_own_updates():
    """A clipper that is built in the middle of a run still has its warm-up."""
    stream = ClippedStream(AdaGC(start_clip_steps=2, max_norm=1.0), SHAPES)
    stream.optimizer.inner_optimizer.iterations.assign(500)
    clipped = stream.clip(gradients_of_norms([2.0, 0.0, 0.0]))
    assert norms_of(clipped)[0] == pytest.approx(1.0, rel=1e-5)


def test_float64(has_float64):
    if not has_float64:
        return
    stream = ClippedStream(AdaGC(start_clip_steps=3), SHAPES, "float64")
    oracle = reference.AdaGC(3, start_clip_steps=3)
    generator = np.random.default_rng(0)
    for _ in range(12):
        gradients = gradients_of_norms(generator.lognormal(size=3), "float64")
        clipped = stream.clip(gradients)
        wanted = oracle.norms_after(norms_of(gradients))
        assert gammas(stream.clipper) == pytest.approx(oracle.gamma, rel=1e-12)
        assert_close(clipped, scaled(gradients, wanted), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clip_ratio": -1}, ValueError, "clip_ratio must be .*at least 0.*Received: clip_ratio"),
        ({"max_norm": None}, TypeError, "max_norm must be a number that is at least 0"),
        ({"beta": 1.01}, ValueError, "beta must be a number from 0 to 1. Received: beta=1.01"),
        ({"eps": -1e-9}, ValueError, "eps must be a finite number that is at least 0"),
        ({"start_clip_steps": -1}, ValueError, "start_clip_steps must be an int.* at least 0"),
        ({"start_clip_steps": "1"}, TypeError, "start_clip_steps must be an int"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AdaGC(**arguments)
