"""A clip has the derivative of its formula, for who differentiates through it."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import Update
from tests.seam.test_jax_loops import differentiates_barriers

backend = keras.config.backend()
pytestmark = pytest.mark.skipif(
    backend == "jax" and not differentiates_barriers(), reason="this JAX differentiates no barrier"
)

GRADIENT, DIRECTION = np.float32([3.0, 4.0]), np.float32([1.0, 2.0])
NORM = 5.0


def derivative(function, array):
    if backend == "jax":
        import jax

        return jax.grad(function)(array)
    if backend == "torch":
        import torch

        tensor = torch.tensor(array, requires_grad=True)
        function(tensor).backward()
        return tensor.grad
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tensor = tf.Variable(array)
        result = function(tf.convert_to_tensor(tensor))
    return tape.gradient(result, tensor)


def clipped_by_global_norm(values, max_norm):
    return keras_clip.clip_by_global_norm([values], max_norm)[0][0]


def clipped_by_norm(values, max_norm):
    limit = keras.ops.convert_to_tensor(np.float32(max_norm))
    return Update([values], [None], 0).scaled_each_to_norm(limit)[0]


@pytest.mark.parametrize("clip", [clipped_by_global_norm, clipped_by_norm])
@pytest.mark.parametrize("max_norm", [2.5, 50.0])
def test_the_norm_counts(clip, max_norm):
    direction = keras.ops.convert_to_tensor(DIRECTION)
    found = derivative(lambda v: keras.ops.sum(clip(v, max_norm) * direction), GRADIENT)
    unit = GRADIENT / NORM
    expected = (DIRECTION - unit * (unit @ DIRECTION)) * max_norm / NORM
    if max_norm > NORM:
        expected = DIRECTION
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
