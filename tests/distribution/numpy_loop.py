"""The model, its gradients, SGD and the clip by global norm, in NumPy and float64."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def gradients(weights: list[Any], inputs: Any, targets: Any, sample_weights: Any) -> list[Any]:
    """Gradients of the weighted sum of squared errors of `tests.support.models.make_model`."""
    kernel, bias, output_kernel, output_bias = weights
    hidden = np.tanh(inputs @ kernel + bias)
    error = 2 * sample_weights * (hidden @ output_kernel + output_bias - targets)
    back = error @ output_kernel.T * (1 - hidden**2)
    return [inputs.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def train(
    start: list[Any], batches: Iterable[Sample], learning_rate: float, max_norm: float
) -> tuple[list[Any], list[float]]:
    """The weights after one step for each batch, and the norms before clipping."""
    weights = [np.asarray(weight, "float64") for weight in start]
    norms = []
    for batch in batches:
        found = gradients(weights, *(np.asarray(part, "float64") for part in batch))
        norms.append(float(np.sqrt(sum(np.sum(np.square(g)) for g in found))))
        rate = learning_rate * min(1.0, max_norm / norms[-1])
        weights = [w - rate * g for w, g in zip(weights, found, strict=True)]
    return weights, norms
