"""Finite gradients whose norm float32 cannot hold are clipped like any others."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer, Update
from tests.reference.global_norm import global_norm
from tests.support.clipping import gradients_of
from tests.support.gradient_stream import as_tensors

HUGE = [np.full((4, 2), 3e38, "float32"), np.float32([-3e38, 1e38]), np.float32([2e38])]
LARGEST = float(np.finfo("float32").max)


def clipped_by(clipper, arrays=HUGE, weight=0.0):
    variables = [keras.Variable(np.full_like(array, weight)) for array in arrays]
    clipper.build_for(variables)
    gradients = as_tensors(arrays)
    update = Update(gradients, variables, keras.ops.convert_to_tensor(0))
    clipped = gradients_of(clipper.clip(update))
    return [np.array(keras.ops.convert_to_numpy(gradient), "float64") for gradient in clipped]


def assert_scaled(found, norms):
    """Each along its gradient, with the norm it should have."""
    for one, array, norm in zip(found, HUGE, norms, strict=True):
        wide = array.astype("float64")
        np.testing.assert_allclose(one, wide * (norm / np.linalg.norm(wide)), rtol=1e-5)


NORMS = [np.linalg.norm(array.astype("float64")) for array in HUGE]
SHARES = [norm / global_norm(HUGE) for norm in NORMS]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 4.0, np.inf])
def test_clip_by_global_norm(norm_type):
    flat = np.concatenate([np.abs(array.astype("float64")).ravel() for array in HUGE])
    largest = flat.max()
    total = largest
    if norm_type != np.inf:
        total = largest * np.sum((flat / largest) ** norm_type) ** (1.0 / norm_type)
    found = clipped_by(keras_clip.ClipByGlobalNorm(0.5, norm_type))
    assert_scaled(found, [norm * 0.5 / total for norm in NORMS])


def test_clip_by_norm():
    assert_scaled(clipped_by(keras_clip.ClipByNorm(0.5)), [0.5, 0.5, 0.5])


def test_clip_by_block_rms():
    roots = [0.5 * np.sqrt(array.size) for array in HUGE]
    assert_scaled(clipped_by(keras_clip.ClipByBlockRMS(0.5)), roots)


def test_adaptive_gradient_clipping():
    """Columns of the first are units of four entries; the weights of each count as `eps`."""
    clipper = keras_clip.AdaptiveGradientClipping(0.5, eps=2.0, axes={".*": 0})
    assert_scaled(clipped_by(clipper), [np.sqrt(2.0), 1.0, 1.0])


def test_ada_gc_in_its_warm_up():
    """Norms above the range count as the largest number, so that only the sum is exact."""
    found = clipped_by(keras_clip.AdaGC(max_norm=0.5))
    assert global_norm(found) == pytest.approx(0.5, rel=1e-5)
    assert_scaled(found, [np.linalg.norm(array) for array in found])


def test_z_clip():
    assert_scaled(clipped_by(keras_clip.ZClip(max_grad_norm=0.5)), [0.5 * s for s in SHARES])


def test_one_that_is_infinite_is_not_finite():
    arrays = [HUGE[0], np.float32([np.inf, 1.0]), HUGE[2]]
    for clipped in clipped_by(keras_clip.ClipByGlobalNorm(0.5), arrays):
        assert np.isnan(clipped).all()
    first, second, third = clipped_by(keras_clip.ClipByNorm(0.5), arrays)
    assert np.isfinite(first).all() and np.isfinite(third).all()
    assert np.isnan(second).all()


def test_the_norm_is_reported_as_the_largest_number():
    update = Update(as_tensors(HUGE), [], 0)
    assert float(update.global_norm) == LARGEST
    assert not bool(update.norm_is_in_range)
    assert bool(Update(as_tensors([np.float32([3e38])]), [], 0).norm_is_in_range)
    assert not bool(Update(as_tensors([np.float32([np.nan])]), [], 0).norm_is_in_range)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "zero", "raise"])
def test_a_step_is_taken(nonfinite):
    variables = [keras.Variable(np.zeros_like(array)) for array in HUGE]
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), max_norm=0.5, nonfinite=nonfinite)
    optimizer.apply(as_tensors(HUGE), variables)
    assert_scaled([-v.numpy().astype("float64") for v in variables], [0.5 * s for s in SHARES])
    assert int(optimizer.skipped_steps.numpy()) == int(optimizer.zeroed_steps.numpy()) == 0
    record = optimizer.history
    assert record["grad_norm"][0] == LARGEST
    assert 0 < record["clip_scale"][0] < 1e-38


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras_clip.AutoClip(50.0, history_size=3),
        lambda: keras_clip.ZClip(warmup_steps=4),
        lambda: keras_clip.AdaGC(start_clip_steps=1),
    ],
    ids=["AutoClip", "ZClip", "AdaGC"],
)
def test_nothing_is_learned_from_it(make):
    variables = [keras.Variable(np.zeros_like(array)) for array in HUGE]
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1e-39), clipper=make())
    optimizer.apply(as_tensors([np.ones_like(array) for array in HUGE]), variables)
    before = [variable.numpy() for variable in optimizer.clipper.state]
    optimizer.apply(as_tensors(HUGE), variables)
    for variable, value in zip(optimizer.clipper.state, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
