"""ZClip against the authors' code, NumPy, and its own promises."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_clip import ClippedOptimizer, Update, ZClip
from tests.reference import z_clip as reference
from tests.reference.global_norm import clip_by_global_norm, global_norm
from tests.support.clipped_stream import ClippedStream, shared_stream
from tests.support.gradient_stream import (
    as_tensors,
    assert_close,
    assert_identical,
    values,
)
from tests.support.norm_streams import SHAPES, assert_gradients_close, gradients_of_norms, norms
from tests.support.vector_files import load, steps

pytestmark = pytest.mark.exhaustive  # arithmetic, the same on every Keras


def numbers(clipper):
    names = ("mean", "std", "threshold")
    return [float(getattr(clipper, name).numpy()) for name in names]


@pytest.mark.parametrize("case", load("zclip.npz")[1])
def test_equals_the_authors_code(case):
    archive, cases = load("zclip.npz")
    arguments = {key: value for key, value in cases[case].items() if key != "n"}
    inputs, expected = steps(archive), steps(archive, f"{case}/", "o")
    stream = ClippedStream(ZClip(**arguments), [np.shape(g) for g in inputs[0]])
    of_case = {key: archive[f"{case}/{key}"] for key in ("norm", "mean", "var", "threshold")}
    largest = np.nanmax(of_case["var"])
    for t, gradients in enumerate(inputs):
        mean_before, std_before, _ = numbers(stream.clipper)
        clipped = stream.clip(gradients)
        mean, std, threshold = numbers(stream.clipper)
        norm = of_case["norm"][t]
        # The reference divides by norm + 1e-6.
        scale = 1.0 if threshold >= norm else (norm + 1e-6) / norm
        assert_close(clipped, [scale * o for o in expected[t]], rtol=1e-5)
        if not math.isnan(of_case["mean"][t]):
            assert mean == pytest.approx(of_case["mean"][t], rel=1e-5)
            assert std**2 == pytest.approx(of_case["var"][t], rel=2e-5, abs=1e-6 * largest)
        if t >= arguments["warmup_steps"]:
            assert threshold == pytest.approx(of_case["threshold"][t], rel=1e-5)
            margin = std_before + (arguments["eps"] if arguments["mode"] == "zscore" else 0.0)
            is_spike = norm > mean_before + arguments["z_thresh"] * margin
            assert is_spike == archive[f"{case}/spike"][t]


OPTIONS = {
    "default": {},
    "mean": {"clip_option": "mean", "max_grad_norm": None, "skip_update_on_spike": True},
    "percentile": {"mode": "percentile", "max_grad_norm": None, "eps": 0.0},
    "factor": {"clip_factor": 0.7, "max_grad_norm": 1e15, "alpha": 0.5},
}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(OPTIONS)),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.lists(st.tuples(norms, norms, norms), min_size=3, max_size=16),
)
def test_any_stream_equals_numpy(name, z_thresh, generated):
    stream = shared_stream(ZClip, SHAPES, warmup_steps=4, **OPTIONS[name])
    stream.clipper.z_thresh = z_thresh
    oracle = reference.ZClip(warmup_steps=4, z_thresh=max(z_thresh, 1e-9), **OPTIONS[name])
    largest = 0.0
    for each in generated:
        gradients = gradients_of_norms(each)
        norm = global_norm(gradients)
        largest = max(largest, norm)
        clipped = stream.clip(gradients)
        expected = oracle.threshold(norm)
        if oracle.margin < 1e-4:
            return  # float32 may decide differently, and all later steps depend on it
        mean, std, threshold = numbers(stream.clipper)
        assert mean == pytest.approx(oracle.mean, rel=1e-5)
        assert std == pytest.approx(math.sqrt(oracle.variance), rel=1e-3, abs=1e-6 * largest)
        assert threshold == pytest.approx(expected, rel=1e-3)
        assert_gradients_close(clipped, clip_by_global_norm(gradients, expected), rtol=1e-3)


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e30])
def test_moments_of_any_magnitude(magnitude):
    """Squares of these norms leave the range of float32."""
    stream = shared_stream(ZClip, SHAPES, warmup_steps=3, max_grad_norm=None, alpha=0.5)
    for norm in (1.0, 2.0, 3.0, 2.5):
        stream.clip(gradients_of_norms([norm * magnitude, 0.0, 0.0]))
    mean, std, _ = numbers(stream.clipper)
    assert mean == pytest.approx(2.25 * magnitude, rel=1e-6)
    variance = 0.5 * (2 / 3) + 0.5 * 0.25**2
    assert std == pytest.approx(math.sqrt(variance) * magnitude, rel=1e-6)


@pytest.mark.parametrize("norm", [1e-3, 0.7, 1e6 / 3, 1e19])
def test_a_constant_norm_is_never_a_spike(norm):
    stream = shared_stream(ZClip, SHAPES, warmup_steps=3, max_grad_norm=None)
    gradients = gradients_of_norms([norm, norm / 3, norm])
    for _ in range(12):
        assert_identical(stream.clip(gradients), gradients)
    assert numbers(stream.clipper)[1] == 0.0


def test_thresholds_can_be_reassigned():
    stream = ClippedStream(ZClip(warmup_steps=1, max_grad_norm=3.0, z_thresh=1e9), SHAPES)
    seen = []
    for norm, maximum, z_thresh in [(1, 3, 1e9), (5, 3, 1e9), (5, 4, 1e9), (9, 4, 0.0)]:
        stream.clipper.max_grad_norm = maximum
        stream.clipper.z_thresh = z_thresh
        stream.clip(gradients_of_norms([float(norm), 0.0, 0.0]))
        seen.append(numbers(stream.clipper)[2])
    mean = 0.97 * (0.97 + 0.03 * 5) + 0.03 * 5
    assert seen == pytest.approx([1.0, 3.0, 4.0, mean], rel=1e-5)


@pytest.mark.parametrize(("maximum", "first"), [(None, math.inf), (7.0, 7.0)])
def test_running_threshold(maximum, first):
    clipper = ZClip(warmup_steps=2, max_grad_norm=maximum, z_thresh=2.0)
    optimizer = ClippedOptimizer("sgd", clipper=clipper)
    variables = [keras.Variable(np.zeros((2,), "float32"))]
    optimizer.build(variables)
    before = []
    for norm in [1.0, 3.0, 3.5]:
        gradients = as_tensors([np.float32([norm, 0.0])])
        update = Update(gradients, variables, keras.ops.convert_to_tensor(0))
        before.append(tuple(map(float, clipper.running_threshold(update))))
        optimizer.apply(gradients, variables)
    assert before == [(1.0, first), (3.0, first), (3.5, 4.0)]  # mean 2, std 1


@pytest.mark.parametrize("taken", [1, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_norm_changes_no_state(bad, taken):
    stream = shared_stream(ZClip, SHAPES, warmup_steps=3)
    for norm in range(taken):
        stream.clip(gradients_of_norms([1.0 + norm, 1.0, 1.0]))
    before = values(stream.clipper.variables)
    stream.clip(gradients_of_norms([1.0, bad, 1.0]))
    assert_identical(values(stream.clipper.variables), before)


def test_float64(has_float64):
    if not has_float64:
        return
    arguments = {"warmup_steps": 4, "max_grad_norm": 3.3}
    stream = ClippedStream(ZClip(**arguments), SHAPES, "float64")
    oracle = reference.ZClip(**arguments)
    generator = np.random.default_rng(0)
    for _ in range(30):
        gradients = gradients_of_norms(generator.lognormal(size=3), "float64")
        clipped = stream.clip(gradients)
        expected = oracle.threshold(global_norm(gradients))
        assert numbers(stream.clipper) == pytest.approx(
            [oracle.mean, math.sqrt(oracle.variance), expected], rel=1e-12
        )
        assert_close(clipped, clip_by_global_norm(gradients, expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, "alpha must be a number from 0 to 1. Received: alpha=1.5"),
        ({"alpha": "a"}, TypeError, "alpha must be a number from 0 to 1"),
        ({"z_thresh": -1}, ValueError, "z_thresh must be .*at least 0.*Received: z_thresh=-1"),
        ({"z_thresh": None}, TypeError, "z_thresh must be"),
        ({"max_grad_norm": -1}, ValueError, "max_grad_norm must be .*or None. Received"),
        ({"eps": math.inf}, ValueError, "eps must be a finite number that is at least 0"),
        ({"warmup_steps": 0}, ValueError, "warmup_steps must be an int that is at least 1"),
        ({"warmup_steps": 2.5}, TypeError, "warmup_steps must be an int"),
        ({"mode": "quantile"}, ValueError, "mode must be one of 'zscore', 'percentile'. Rec"),
        ({"mode": None}, TypeError, "mode must be one of"),
        ({"clip_option": "median"}, ValueError, "one of 'adaptive_scaling', 'mean'. Received"),
        ({"clip_factor": math.nan}, ValueError, "clip_factor must be a finite number"),
        ({"skip_update_on_spike": 1}, TypeError, "must be True or False. Received: skip_upd"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ZClip(**arguments)
