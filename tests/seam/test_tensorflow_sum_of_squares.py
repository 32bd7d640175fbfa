"""Tensors of middling length are summed in two rows; every entry counts once."""

import keras
import numpy as np
import pytest

import keras_clip

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="only TensorFlow halves sums of that length"
)

# Around one thread's share, an odd number, and both ends of the long sizes.
LENGTHS = [90_000, 90_002, 99_856, 200_003, 2**22 - 2, 2**22]
HOW = ["eager", "graph", "xla"]


def norm(gradients, how):
    import tensorflow as tf

    function = keras_clip.global_norm
    if how != "eager":
        function = tf.function(function, jit_compile=how == "xla")
    return float(function(gradients))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_entry_counts_once(length, how):
    # Sums of ones are exact up to 16 million.
    assert round(norm([np.ones(length, "float32")], how) ** 2) == length


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_norm_of_several_dtypes(scale, how):
    generator = np.random.default_rng(3)
    values = [generator.normal(size=(316, 316)), generator.normal(size=150_001)]
    arrays = [(scale * values[0]).astype("float32"), values[1].astype("float16")]
    expected = np.sqrt(sum(np.sum(array.astype("float64") ** 2) for array in arrays))
    np.testing.assert_allclose(norm(arrays, how), expected, rtol=1e-6)


@pytest.mark.parametrize("has_accelerator", [False, True])
def test_only_what_two_threads_would_share_is_cut(has_accelerator, monkeypatch):
    import tensorflow as tf

    from keras_clip._seam.tensorflow import graphs

    monkeypatch.setattr(graphs, "has_accelerator", lambda: has_accelerator)

    @tf.function
    def norm_of(gradients):
        return keras_clip.global_norm(gradients)

    arrays = [np.zeros(length, "float32") for length in LENGTHS]
    graph = norm_of.get_concrete_function([tf.constant(array) for array in arrays]).graph
    rows = [operation for operation in graph.get_operations() if operation.type == "EuclideanNorm"]
    expected = [] if has_accelerator else [90_002, 99_856, 2**22 - 2]
    assert [operation.inputs[0].shape.num_elements() for operation in rows] == expected


def test_long_rows_are_exact():
    # The root of the square of 0.1 is rounded one way in every entry.
    array = np.full(2**22 - 2, 0.1, "float32")
    expected = float(np.float32(0.1)) * np.sqrt(len(array))
    assert norm([array], "graph") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("length", [99_856, 200_003])
def test_has_a_derivative_where_a_row_is_zero(length):
    import tensorflow as tf

    half_zero = np.repeat([0.0, 1.0], [length // 2, length - length // 2]).astype("float32")

    @tf.function
    def derivative(gradient):
        with tf.GradientTape() as tape:
            tape.watch(gradient)
            norm = keras_clip.global_norm([gradient])
        return tape.gradient(norm, gradient)

    expected = half_zero / np.sqrt(np.sum(half_zero, dtype="float64"))
    np.testing.assert_allclose(derivative(tf.constant(half_zero)), expected, rtol=1e-5)
