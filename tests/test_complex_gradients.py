"""A complex entry counts by its absolute value, as in torch and optax."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.support.gradient_stream import as_tensors

ENTRIES = np.complex64([[3j, 4.0 + 1.0j, 0.0]])
IMAGINARY = np.complex64([-2j, 1e-3j])
REAL = np.float32([1.5, 0.0])
GRADIENTS = [ENTRIES, IMAGINARY, REAL]


def p_norm(arrays, p):
    flat = np.abs(np.concatenate([a.astype("complex128").ravel() for a in arrays]))
    return flat.max() if np.isinf(p) else np.sum(flat**p) ** (1.0 / p)


def one_step(clipper, arrays=GRADIENTS):
    """Return the values that SGD subtracted from zeros."""
    variables = [keras.Variable(np.zeros_like(a), dtype=str(a.dtype)) for a in arrays]
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), clipper=clipper)
    optimizer.apply(as_tensors(arrays), variables)
    return [-np.array(keras.ops.convert_to_numpy(v.value)) for v in variables], optimizer


def assert_all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_global_norm(scale):
    arrays = [(array * scale).astype(array.dtype) for array in GRADIENTS]
    norm = float(keras_clip.global_norm(as_tensors(arrays)))
    assert norm == pytest.approx(p_norm(arrays, 2.0), rel=1e-6)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, np.inf])
def test_clip_by_global_norm(norm_type):
    factor = 0.5 / p_norm(GRADIENTS, norm_type)
    step, optimizer = one_step(keras_clip.ClipByGlobalNorm(0.5, norm_type))
    assert_all_close(step, [(array * factor).astype(array.dtype) for array in GRADIENTS])
    assert float(optimizer.grad_norm.numpy()) == pytest.approx(p_norm(GRADIENTS, 2.0), rel=1e-6)


def test_below_the_threshold_every_bit_stays():
    step, _ = one_step(keras_clip.ClipByGlobalNorm(100.0))
    for found, array in zip(step, GRADIENTS, strict=True):
        np.testing.assert_array_equal(found, array)


def test_clip_by_norm():
    step, _ = one_step(keras_clip.ClipByNorm(0.5))
    assert_all_close(step, [(a * 0.5 / p_norm([a], 2.0)).astype(a.dtype) for a in GRADIENTS])


def test_clip_by_block_rms():
    step, _ = one_step(keras_clip.ClipByBlockRMS(0.5))
    rms = [p_norm([array], 2.0) / np.sqrt(array.size) for array in GRADIENTS]
    expected = [a * min(1.0, 0.5 / r) for a, r in zip(GRADIENTS, rms, strict=True)]
    assert_all_close(step, [e.astype(a.dtype) for e, a in zip(expected, GRADIENTS, strict=True)])


def test_adaptive_gradient_clipping():
    """The whole vector is one unit; the weights are zero and count as `eps`."""
    step, _ = one_step(keras_clip.AdaptiveGradientClipping(0.1, eps=2.0), [IMAGINARY])
    assert_all_close(step, [(IMAGINARY * 0.2 / p_norm([IMAGINARY], 2.0)).astype("complex64")])


def test_adaptive_gradient_clipping_by_weights():
    weights = np.complex64([3j, 4.0])
    variable = keras.Variable(weights, dtype="complex64")
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(1.0), clipper=keras_clip.AdaptiveGradientClipping(0.1)
    )
    optimizer.apply(as_tensors([IMAGINARY]), [variable])
    step = weights - np.array(keras.ops.convert_to_numpy(variable.value))
    np.testing.assert_allclose(step, IMAGINARY * 0.5 / p_norm([IMAGINARY], 2.0), atol=1e-6)


@pytest.mark.parametrize(
    "clipper",
    [
        keras_clip.AutoClip(0.0),
        keras_clip.ZClip(warmup_steps=1, max_grad_norm=0.25),
        keras_clip.AdaGC(start_clip_steps=1, max_norm=0.25, eps=0.0),
        keras_clip.ObserveOnly(keras_clip.ClipByGlobalNorm(0.25)),
    ],
    ids=lambda clipper: type(clipper).__name__,
)
def test_others_go_by_norms(clipper):
    step, _ = one_step(clipper)
    is_idle = isinstance(clipper, keras_clip.AutoClip | keras_clip.ObserveOnly)
    factor = 1.0 if is_idle else 0.25 / p_norm(GRADIENTS, 2.0)
    assert_all_close(step, [(array * factor).astype(array.dtype) for array in GRADIENTS])


def test_values_have_no_order():
    with pytest.raises(ValueError, match="complex numbers have no order.*'weights'.*Clip by norm"):
        variable = keras.Variable(ENTRIES, dtype="complex64", name="weights")
        ClippedOptimizer("sgd", clipper=keras_clip.ClipByValue(1.0)).build([variable])


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="slices are TensorFlow's")
def test_repeated_rows_are_summed():
    import tensorflow as tf

    rows = tf.constant(np.complex64([[3j], [1.0], [4.0 - 3j]]))
    slices = tf.IndexedSlices(rows, tf.constant([0, 1, 0]), tf.constant([2, 1]))
    norm = float(keras_clip.global_norm([slices]))
    assert norm == pytest.approx(np.sqrt(4.0**2 + 1.0), rel=1e-6)
