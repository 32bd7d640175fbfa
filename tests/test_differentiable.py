"""A clip and a norm have the derivatives of their formulas, checked by differences in float64."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer, Update
from keras_clip.norms.global_norm import norm_of_tensors
from tests.seam.test_jax_loops import differentiates_barriers

backend = keras.config.backend()
pytestmark = pytest.mark.skipif(
    backend == "jax" and not differentiates_barriers(), reason="this JAX differentiates no barrier"
)

DIRECTION = np.float32([1.0, 2.0])


def derivative(function, array):
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(array))
    if backend == "torch":
        import torch

        tensor = torch.tensor(array, requires_grad=True)
        function(tensor).backward()
        return tensor.grad.numpy()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tensor = tf.Variable(array)
        result = function(tf.convert_to_tensor(tensor))
    return tape.gradient(result, tensor).numpy()


def by_differences(function, array):
    """Central differences in float64, by a part of the array's own size."""
    array = array.astype("float64")
    step = 1e-6 * (np.abs(array).max() or 1.0)
    return np.array(
        [
            (function(array + step * unit) - function(array - step * unit)) / (2.0 * step)
            for unit in np.eye(len(array))
        ]
    )


def clipped_by_global_norm(values, max_norm):
    return keras_clip.clip_by_global_norm([values], max_norm)[0][0]


def clipped_by_tensor(values, max_norm):
    return clipped_by_global_norm(values, keras.ops.convert_to_tensor(np.float32(max_norm)))


def clipped_by_norm(values, max_norm):
    limit = keras.ops.convert_to_tensor(np.float32(max_norm))
    return Update([values], [None], 0).scaled_each_to_norm(limit).gradients[0]


def clipped_in_numpy(values, max_norm):
    norm = np.linalg.norm(values)
    return values * (max_norm / norm if norm > max_norm else 1.0)


CASES = [
    ([3.0, 4.0], 2.5),
    ([3.0, 4.0], 50.0),
    ([3.0, 4.0], np.inf),
    ([3.0, 4.0], 0.0),
    ([3e10, 4e10], 1.0),
    ([3e25, 4e25], 2.5),
    ([3e25, 4e25], 1e30),
    ([3e-25, 4e-25], 2.5),
    ([3e-25, 4e-25], 1e-25),
    ([0.0, 0.0], 2.5),
    ([0.0, 4.0], 2.5),
]


@pytest.mark.parametrize("gradient, max_norm", CASES)
@pytest.mark.parametrize("clip", [clipped_by_global_norm, clipped_by_tensor, clipped_by_norm])
def test_of_a_clip(clip, gradient, max_norm):
    direction = keras.ops.convert_to_tensor(DIRECTION)
    found = derivative(
        lambda values: keras.ops.sum(clip(values, max_norm) * direction), np.float32(gradient)
    )
    expected = by_differences(
        lambda values: clipped_in_numpy(values, max_norm) @ DIRECTION.astype("float64"),
        np.float32(gradient),
    )
    np.testing.assert_allclose(
        found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(initial=0.0)
    )


GRADIENTS = [[3.0, 4.0], [3e25, 4e25], [3e-25, 4e-25], [0.0, 4.0]]


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
def test_of_a_norm(p, gradient):
    if p == 1.0:
        gradient = [max(gradient[0], 0.5 * gradient[1]), gradient[1]]  # no corner
    found = derivative(lambda values: norm_of_tensors([values], p), np.float32(gradient))
    expected = by_differences(lambda values: np.linalg.norm(values, p), np.float32(gradient))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_of_a_norm_at_zero_is_zero(p):
    """No norm has a derivative at zero; 0 is a slope that torch and optax also use."""
    found = derivative(lambda values: norm_of_tensors([values], p), np.float32([0.0, 0.0]))
    np.testing.assert_array_equal(found, [0.0, 0.0])


@pytest.mark.skipif(backend != "jax", reason="two derivatives at once are JAX's")
@pytest.mark.parametrize("gradient, max_norm", [([3.0, 4.0], 2.5), ([3e-3, 4e-3], 1e-3)])
def test_of_a_derivative(gradient, max_norm):
    """Second derivatives along the direction, as for meta-learning."""
    import jax

    def along(values):
        return keras.ops.sum(clipped_by_tensor(values, max_norm) * DIRECTION)

    found = jax.jacfwd(jax.grad(along))(np.float32(gradient))
    gradient = np.float32(gradient).astype("float64")

    def first(values):
        norm = np.linalg.norm(values)
        unit = values / norm
        return (DIRECTION - unit * (unit @ DIRECTION)) * max_norm / norm

    step = 1e-6 * np.abs(gradient).max()
    units = np.eye(2)
    rows = [(first(gradient + step * u) - first(gradient - step * u)) / (2 * step) for u in units]
    np.testing.assert_allclose(found, np.transpose(rows), rtol=1e-4)


@pytest.mark.skipif(keras.config.backend() == "tensorflow", reason="it has no stateless_apply")
@pytest.mark.parametrize(
    "options",
    [
        {"max_norm": 100.0},
        {"max_norm": 1.0},
        {"max_norm": 0.0},
        # All of these are idle.
        {"max_norm": 1.0, "nonfinite": "skip"},
        {"max_norm": 1.0, "skip_above": 100.0},
        {"max_norm": 1.0, "max_weight": 9.0},
        {"max_norm": 1.0, "max_update_ratio": 9.0},
        {"max_norm": 100.0, "max_update_ratio": 0.01},
    ],
)
def test_a_whole_step_has_the_derivative_of_its_formula(options):
    """Meta-learning differentiates the gradient of an inner loss and one update."""

    class PlainSGD(keras.optimizers.Optimizer):
        """Keras's own on torch records nothing."""

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * gradient)

    one, other = np.array([1.0, -0.5, 0.3]), np.array([0.2, 0.7, -1.0])
    weights = np.array([1.0, 2.0, 3.0])

    def expected_loss(w):
        gradient = 2 * w * one**2
        size = np.linalg.norm(gradient)
        clipped = gradient * min(1.0, options["max_norm"] / size)
        change = -0.1 * clipped
        limit = options.get("max_update_ratio", np.inf) * np.linalg.norm(w)
        change = change * min(1.0, limit / max(np.linalg.norm(change), 1e-30))
        return np.sum(((w + change) * other) ** 2)

    differences = 1e-6 * np.eye(3)
    expected = [
        (expected_loss(weights + d) - expected_loss(weights - d)) / 2e-6 for d in differences
    ]
    variable = keras.Variable(weights, dtype="float32")
    optimizer = ClippedOptimizer(PlainSGD(0.1), **options)
    optimizer.build([variable])
    np.testing.assert_allclose(
        _derivative_of_a_step(optimizer, weights, np.float32(one), np.float32(other)),
        expected,
        rtol=1e-4,
    )


def _derivative_of_a_step(optimizer, weights, one, other):
    if keras.config.backend() == "torch":
        import torch

        w = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        state = [v.value.detach().clone() for v in optimizer.variables]
        inner = torch.sum((w * torch.tensor(one)) ** 2)
        (gradient,) = torch.autograd.grad(inner, w, create_graph=True)
        (stepped,), _ = optimizer.stateless_apply(state, [gradient], [w])
        return torch.autograd.grad(torch.sum((stepped * torch.tensor(other)) ** 2), w)[0].numpy()
    import jax
    import jax.numpy as jnp

    def loss(w):
        gradient = jax.grad(lambda w: jnp.sum((w * one) ** 2))(w)
        state = [v.value for v in optimizer.variables]
        (stepped,), _ = optimizer.stateless_apply(state, [gradient], [w])
        return jnp.sum((stepped * other) ** 2)

    return np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(weights, "float32")))
