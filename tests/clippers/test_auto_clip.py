"""AutoClip against the authors' code, NumPy's percentile, and its own promises."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_clip import AutoClip, ClippedOptimizer, Update
from tests.reference import auto_clip as reference
from tests.reference.global_norm import clip_by_global_norm, global_norm
from tests.support.clipped_stream import ClippedStream, shared_stream
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.norm_streams import SHAPES, assert_gradients_close, gradients_of_norms, norms
from tests.support.vector_files import load, steps

pytestmark = pytest.mark.exhaustive  # arithmetic, the same on every Keras

WINDOWS = {name: p for name, p in load("autoclip_variants.npz")[1].items() if p.get("derived")}


def stream_of(gradients, percentile, **arguments):
    stream = shared_stream(AutoClip, [np.shape(g) for g in gradients], **arguments)
    stream.clipper.percentile = percentile
    return stream


def state_of(clipper):
    return float(clipper.threshold.numpy())


@pytest.mark.parametrize("case", load("autoclip.npz")[1])
def test_equals_the_authors_code(case):
    archive, cases = load("autoclip.npz")
    inputs = steps(archive)
    stream = stream_of(inputs[0], percentile=cases[case]["clip_percentile"])
    expected = steps(archive, f"{case}/", "o")
    for t, gradients in enumerate(inputs):
        clipped = stream.clip(gradients)
        norm = archive[f"{case}/norm"][t]
        assert state_of(stream.clipper) == pytest.approx(archive[f"{case}/threshold"][t], rel=5e-6)
        # The reference divides by norm + 1e-6.
        scale = 1.0 if state_of(stream.clipper) >= norm else (norm + 1e-6) / norm
        assert_close(clipped, [scale * o for o in expected[t]], rtol=1e-5)


@pytest.mark.parametrize("case", WINDOWS)
def test_equals_the_formula_with_a_window(case):
    archive, _ = load("autoclip_variants.npz")
    inputs = steps(archive)
    arguments = {"percentile": WINDOWS[case]["percentile"], "history_size": 16}
    stream = stream_of(inputs[0], **arguments)
    for t, gradients in enumerate(inputs):
        clipped = stream.clip(gradients)
        assert float(stream.optimizer.grad_norm.numpy()) == pytest.approx(
            archive[f"{case}/norm"][t], rel=5e-6
        )
        assert state_of(stream.clipper) == pytest.approx(archive[f"{case}/threshold"][t], rel=5e-6)
        scale = archive[f"{case}/f64_scale"][t]
        assert_close(clipped, [scale * g for g in gradients], rtol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0.0, 10.0, 25.0, 50.0, 90.0, 100.0]),
    st.lists(st.tuples(norms, norms, norms), min_size=1, max_size=16),
)
def test_any_stream_equals_numpy(size, percentile, generated):
    stream = stream_of(gradients_of_norms([0.0] * 3), percentile, history_size=size)
    oracle = reference.AutoClip(percentile, size)
    for each in generated:
        gradients = gradients_of_norms(each)
        clipped = stream.clip(gradients)
        threshold = oracle.threshold(global_norm(gradients))
        assert state_of(stream.clipper) == pytest.approx(threshold, rel=1e-5)
        assert_gradients_close(clipped, clip_by_global_norm(gradients, threshold))
    window = [float(n) for n in stream.clipper.sorted_norms.numpy()]
    assert window == sorted(window)
    assert sorted(stream.clipper.norms.numpy()) == window


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from([0.0, 25.0, 75.0]),
    st.sampled_from([0.5, 1.0, 20.0]),
    st.sampled_from([1.0, 1.5, 1000.0]),
    st.lists(st.tuples(norms, norms, norms), min_size=1, max_size=16),
)
def test_any_stream_with_bounded_growth_equals_numpy(percentile, least, growth, generated):
    arguments = {"history_size": 3, "min_threshold": 1.0, "max_growth": 1.0}
    stream = stream_of(gradients_of_norms([0.0] * 3), percentile, **arguments)
    stream.clipper.min_threshold, stream.clipper.max_growth = least, growth
    oracle = reference.AutoClip(percentile, 3, least, growth)
    for each in generated:
        gradients = gradients_of_norms(each)
        clipped = stream.clip(gradients)
        threshold = oracle.threshold(global_norm(gradients))
        assert state_of(stream.clipper) == pytest.approx(threshold, rel=1e-5)
        assert_gradients_close(clipped, clip_by_global_norm(gradients, threshold))


def test_bounded_growth_follows_steady_norms_and_no_explosion():
    thresholds = {}
    for norm in (1.2, 5.0, 1e30):
        clipper = AutoClip(25, 100, min_threshold=1.0, max_growth=1.5)
        stream = ClippedStream(clipper, SHAPES)
        for _ in range(100):
            stream.clip(gradients_of_norms([norm, 0.0, 0.0]))
        thresholds[norm] = state_of(clipper)
    assert thresholds[1.2] == pytest.approx(1.2)
    assert 3.0 < thresholds[5.0] <= 5.0
    assert thresholds[5.0] <= thresholds[1e30] < 1.5**6


@pytest.mark.parametrize("growth", [0.9, 1001, math.nan])
def test_growth_out_of_bounds(growth):
    with pytest.raises(ValueError, match="from 1 to 1000.*Received: max_growth="):
        AutoClip(min_threshold=1.0, max_growth=growth)


def test_growth_needs_a_least_threshold():
    with pytest.raises(ValueError, match="needs a min_threshold above 0.*Received: max_growth=2"):
        AutoClip(max_growth=2.0)


@pytest.mark.parametrize("steps_taken", [3, 8])
def test_history_holds_the_latest_norms_before_clipping(steps_taken):
    clipper = AutoClip(percentile=0, history_size=4)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    inputs = gradient_stream(steps_taken)
    apply_all(optimizer, make_variables(), inputs)
    expected = [global_norm(gradients) for gradients in inputs][-4:]
    held = clipper.norms.numpy()
    np.testing.assert_allclose(
        sorted(held[held < np.finfo(held.dtype).max]), sorted(expected), rtol=1e-6
    )
    assert int(clipper.count.numpy()) == steps_taken


@pytest.mark.parametrize("first", [0, 1])
def test_hundred_never_clips_and_the_first_update_passes(first):
    percentile = [100.0, 0.0][first]
    stream = stream_of(gradients_of_norms([0.0] * 3), percentile, history_size=3)
    for norm in [1.0, 3.0, 0.3, 5.0, 1e20, 1e-20] if percentile else [2.0]:
        gradients = gradients_of_norms([norm, norm, norm])
        assert_identical(stream.clip(gradients), gradients)


def test_zero_percent_clips_to_the_smallest_until_it_has_left():
    stream = stream_of(gradients_of_norms([0.0] * 3), 0.0, history_size=3)
    thresholds = []
    for norm in [4.0, 0.0, 5.0, 6.0, 7.0, 8.0]:
        stream.clip(gradients_of_norms([norm, 0.0, 0.0]))
        thresholds.append(state_of(stream.clipper))
    assert thresholds == [4.0, 0.0, 0.0, 0.0, 5.0, 6.0]


def test_percentile_may_follow_the_step():
    clipper = AutoClip(percentile=lambda step: 100 - 50 * step, history_size=4)
    stream = ClippedStream(clipper, SHAPES)
    thresholds = []
    for norm in [1.0, 3.0, 2.0, 7.0]:  # at 100, 50, 0 and -50 percent
        stream.clip(gradients_of_norms([norm, 0.0, 0.0]))
        thresholds.append(state_of(clipper))
    assert thresholds == [1.0, 2.0, 1.0, 1.0]


def test_running_threshold_is_that_of_the_history_before():
    clipper = AutoClip(percentile=50, history_size=2)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    variables = [keras.Variable(np.zeros((2,), "float32"))]
    optimizer.build(variables)
    before = []
    for norm in [1.0, 3.0, 5.0, 9.0]:
        gradients = as_tensors([np.float32([norm, 0.0])])
        update = Update(gradients, variables, keras.ops.convert_to_tensor(0))
        own, limit = clipper.running_threshold(update)
        before.append((float(own), float(limit)))
        optimizer.apply(gradients, variables)
    assert before == [(1.0, math.inf), (3.0, 1.0), (5.0, 2.0), (9.0, 4.0)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_norm_never_enters_the_history(bad):
    stream = stream_of(gradients_of_norms([0.0] * 3), 10.0, history_size=3)
    for norm in (1.0, 2.0):
        stream.clip(gradients_of_norms([norm, norm, norm]))
    before = values(stream.clipper.variables)
    stream.clip(gradients_of_norms([1.0, bad, 1.0]))
    assert_identical(values(stream.clipper.variables), before)


def test_float64(has_float64):
    if not has_float64:
        return
    stream = ClippedStream(AutoClip(percentile=30, history_size=5), SHAPES, "float64")
    oracle = reference.AutoClip(30, 5)
    generator = np.random.default_rng(0)
    for _ in range(9):
        gradients = gradients_of_norms(generator.lognormal(size=3), "float64")
        clipped = stream.clip(gradients)
        threshold = oracle.threshold(global_norm(gradients))
        assert state_of(stream.clipper) == pytest.approx(threshold, rel=1e-13)
        assert_close(clipped, clip_by_global_norm(gradients, threshold), rtol=1e-13)


def test_only_float32_gradients_in_a_float64_model(has_float64):
    if not has_float64:
        return
    clipper = AutoClip(percentile=0, history_size=2)
    variables = [keras.Variable([1.0], dtype="float64"), keras.Variable([1.0], dtype="float32")]
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    optimizer.build(variables)
    for norm in (4.0, 8.0):
        optimizer.apply(as_tensors([np.float32([norm])]), variables[1:])
    assert state_of(clipper) == 4.0


@pytest.mark.parametrize("percentile", [-1, 100.5, math.nan])
def test_percentile_out_of_bounds(percentile):
    with pytest.raises(ValueError, match="from 0 to 100.*Received: percentile="):
        AutoClip(percentile=percentile)


@pytest.mark.parametrize(
    ("size", "error"),
    [(0, ValueError), (-3, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)],
)
def test_history_size_is_an_int_from_one(size, error):
    with pytest.raises(error, match="history_size must be an int that is at least 1. Received"):
        AutoClip(history_size=size)


def test_a_least_threshold_that_is_assigned_zero_can_grow():
    clipper = AutoClip(50.0, min_threshold=1.0, max_growth=1.5)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    clipper.min_threshold = 0.0
    optimizer.apply([keras.ops.ones(1)], [variable])
    assert float(clipper.threshold.numpy()) == 1.0
