"""Tensors of middling length are summed in pieces; every entry counts once."""

import keras
import numpy as np
import pytest

import keras_clip

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="only TensorFlow halves sums of that length"
)

# One thread's share and around it, one that 16 does not divide, and the two ends of what is long.
LENGTHS = [90_000, 90_001, 99_856, 200_003, 2**18 - 1, 2**18]
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


def test_only_what_two_threads_would_share_is_cut():
    import tensorflow as tf

    @tf.function
    def norm_of(gradients):
        return keras_clip.global_norm(gradients)

    arrays = [np.zeros(length, "float32") for length in LENGTHS]
    graph = norm_of.get_concrete_function([tf.constant(array) for array in arrays]).graph
    # Whole, four of two or three pieces, whole.
    sums = [operation for operation in graph.get_operations() if operation.type == "L2Loss"]
    assert len(sums) == 1 + 2 + 2 + 3 + 3 + 1
