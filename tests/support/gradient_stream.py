"""Variables of every rank and a reproducible stream of gradients for them."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

SHAPES = {"kernel": (4, 3), "bias": (3,), "depthwise_kernel": (2, 2, 2), "scale": ()}


def make_variables(seed: int = 0, dtype: str = "float32") -> list[Any]:
    """Keras variables with values that depend on `seed` alone."""
    generator = np.random.default_rng(seed)
    return [
        keras.Variable(generator.normal(size=shape).astype(dtype), name=name, dtype=dtype)
        for name, shape in SHAPES.items()
    ]


def gradient_stream(steps: int, seed: int = 1, dtype: str = "float32") -> list[list[np.ndarray]]:
    """For each step, one gradient per variable of `make_variables`; norms vary tenfold."""
    generator = np.random.default_rng(seed)
    return [
        [
            (generator.normal(size=shape) * 10 ** generator.uniform(-0.5, 0.5)).astype(dtype)
            for shape in SHAPES.values()
        ]
        for _ in range(steps)
    ]


def as_tensors(gradients: Sequence[np.ndarray | None]) -> list[Any]:
    """Tensors of the backend."""
    return [None if g is None else keras.ops.convert_to_tensor(g) for g in gradients]


def apply_all(optimizer: Any, variables: Sequence[Any], stream: Sequence[Sequence[Any]]) -> None:
    """One `apply` per step of the stream."""
    for gradients in stream:
        optimizer.apply(as_tensors(gradients), variables)


def values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Copies of the variables' values."""
    return [np.array(variable.numpy()) for variable in variables]


def assert_identical(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Bit for bit, NaN included."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


def assert_close(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], rtol: float = 1e-6
) -> None:
    """To `rtol` of each array's largest finite entry; infinite entries in the same places."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        finite = np.abs(other)[np.isfinite(other)]
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * finite.max(initial=0))
