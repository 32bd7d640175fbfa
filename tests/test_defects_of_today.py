"""The table of docs/coming-from-another-clip.md, one test a row: the built-in fails."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.gradient_stream import as_tensors

tensorflow_only = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="a defect of TensorFlow's function"
)


def builtin_step(gradients, threshold):
    """Return the gradients after Keras's own `global_clipnorm`."""
    return step(keras.optimizers.SGD(1.0, global_clipnorm=threshold), gradients)


def step(optimizer, gradients):
    variables = [keras.Variable(np.zeros(g.shape), dtype=g.dtype) for g in gradients]
    optimizer.apply(gradients, variables)
    return [-variable.numpy().astype("float32") for variable in variables]


@tensorflow_only
def test_repeated_rows():
    import tensorflow as tf

    slices = tf.IndexedSlices(tf.constant([[3.0], [3.0]]), tf.constant([1, 1]), tf.constant([2, 1]))
    assert float(tf.linalg.global_norm([slices])) == pytest.approx(4.24, abs=0.01)
    clipped, _ = tf.clip_by_global_norm([slices], 1.0)
    assert reference.global_norm([tf.convert_to_tensor(clipped[0]).numpy()]) > 1.4
    clipped, norm = keras_clip.clip_by_global_norm([slices], 1.0)
    assert float(norm) == 6.0
    assert reference.global_norm([tf.convert_to_tensor(clipped[0]).numpy()]) == pytest.approx(1.0)


@tensorflow_only
def test_repeated_rows_in_an_optimizer():
    import tensorflow as tf

    slices = tf.IndexedSlices(tf.constant([[3.0], [3.0]]), tf.constant([1, 1]), tf.constant([2, 1]))
    steps = []
    for optimizer in (
        keras.optimizers.SGD(1.0, global_clipnorm=1.0),
        ClippedOptimizer(keras.optimizers.SGD(1.0), 1.0),
    ):
        variable = keras.Variable(np.zeros((2, 1)), dtype="float32")
        optimizer.apply([slices], [variable])
        steps.append(reference.global_norm([variable.numpy()]))
    assert steps[0] == pytest.approx(1.41, abs=0.01)
    assert steps[1] == pytest.approx(1.0)


def test_large_finite_gradients():
    gradients = as_tensors([np.float32([1e25, 1e25])])
    # A NaN, or on some versions zeros: neither is the gradient.
    assert not np.allclose(builtin_step(gradients, 1.0)[0], np.sqrt(0.5))
    ours = step(ClippedOptimizer(keras.optimizers.SGD(1.0), 1.0), gradients)
    np.testing.assert_allclose(ours[0], np.sqrt(0.5), rtol=1e-6)


def test_half_precision():
    gradients = [keras.ops.cast([300.0, 300.0], "float16")]
    assert not np.allclose(builtin_step(gradients, 1.0)[0], np.sqrt(0.5), rtol=1e-2)
    ours = step(ClippedOptimizer(keras.optimizers.SGD(1.0), 1.0), gradients)
    np.testing.assert_allclose(ours[0], np.sqrt(0.5), rtol=1e-3)


@tensorflow_only
def test_mixed_dtypes():
    import tensorflow as tf

    mixed = [tf.constant([3.0], tf.float16), tf.constant([4.0])]
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.clip_by_global_norm(mixed, 1.0)
    clipped, norm = keras_clip.clip_by_global_norm(mixed, 1.0)
    assert float(norm) == 5.0
    assert [g.dtype for g in clipped] == [tf.float16, tf.float32]


def test_negative_threshold():
    gradients = as_tensors([np.float32([3.0, 4.0])])
    np.testing.assert_array_equal(builtin_step(gradients, -1.0)[0], [3.0, 4.0])
    with pytest.raises(ValueError, match="at least 0"):
        ClippedOptimizer("sgd", -1.0)


@tensorflow_only
def test_negative_threshold_of_the_function():
    import tensorflow as tf

    ignored, _ = tf.clip_by_global_norm([tf.constant([3.0, 4.0])], -1.0)
    np.testing.assert_array_equal(ignored[0], [3.0, 4.0])
    with pytest.raises(ValueError, match="at least 0"):
        keras_clip.clip_by_global_norm([tf.constant([3.0, 4.0])], -1.0)


def test_infinite_threshold():
    gradients = as_tensors([np.float32([3.0, 4.0])])
    assert np.isnan(builtin_step(gradients, float("inf"))[0]).all()
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), float("inf"))
    np.testing.assert_array_equal(step(optimizer, gradients)[0], [3.0, 4.0])
    assert float(optimizer.grad_norm.numpy()) == 5.0


def test_below_the_threshold():
    """0.53 is one of the thresholds whose inverse does not multiply back to 1."""
    gradients = [np.random.default_rng(0).uniform(0.001, 0.01, 1000).astype("float32")]
    assert not np.array_equal(builtin_step(as_tensors(gradients), 0.53)[0], gradients[0])
    ours = step(ClippedOptimizer(keras.optimizers.SGD(1.0), 0.53), as_tensors(gradients))
    np.testing.assert_array_equal(ours[0], gradients[0])
