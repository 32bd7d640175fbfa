"""A small regression, and its training in NumPy and float64 on one device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A row for each of eight replicas.
BATCH, STEPS = 8, 8
# A power of two and a sum of few of them: float32 holds them exactly.
LEARNING_RATE, MOMENTUM = 0.0625, 0.875
MAX_NORM = 0.25
# Its last row is on the last replica.
SPOILT_STEP = 4

Batch = tuple[np.ndarray, np.ndarray]


def batches(spoilt_step: int | None = None) -> list[Batch]:
    """Return rows of unequal size, so that no two replicas see the same.

    Small enough for gradients in float16, times the 2**15 that Keras begins to scale losses with.
    """
    generator = np.random.default_rng(5)
    scale = np.tile(np.linspace(0.2, 1.4, BATCH), STEPS)[:, None]
    inputs = generator.normal(size=(BATCH * STEPS, 4)) * scale
    targets = np.tanh(inputs).sum(axis=1, keepdims=True)
    # Rounded to float16, so that every precision trains on the same data.
    rounded = [np.float32(np.float16(array)) for array in (inputs, targets)]
    found = [tuple(np.split(array, STEPS)) for array in rounded]
    if spoilt_step is not None:
        found[1][spoilt_step][-1] = np.nan
    return list(zip(*found, strict=True))


def start() -> list[np.ndarray]:
    """Kernel and bias of the hidden layer, then of the output."""
    generator = np.random.default_rng(6)
    shapes = [(4, 8), (8,), (8, 1), (1,)]
    return [np.float32(generator.normal(size=shape) * 0.4) for shape in shapes]


@dataclass
class Course:
    """The results of a run: one entry of each list for each batch."""

    weights: list[np.ndarray]
    norms: list[float]
    velocity: np.ndarray
    updates: int
    skipped: int = 0
    # The scale of a LossScaleOptimizer outside.
    scale: float | None = None
    # The variables that Keras sets to their "gradient", after each batch.
    overwritten: list[np.ndarray] = field(default_factory=list)


def flat(arrays: Sequence[Any]) -> np.ndarray:
    """All entries of all arrays, in float64."""
    return np.concatenate([np.ravel(np.asarray(array, "float64")) for array in arrays])


def gradients(weights: list[np.ndarray], inputs: np.ndarray, targets: np.ndarray) -> list[Any]:
    """Return the gradients of the mean squared error."""
    kernel, bias, output_kernel, output_bias = weights
    hidden = np.tanh(inputs @ kernel + bias)
    error = 2 * (hidden @ output_kernel + output_bias - targets) / len(inputs)
    back = error @ output_kernel.T * (1 - hidden**2)
    return [inputs.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]


def reference(given: Sequence[Batch], momentum: float = MOMENTUM) -> Course:
    """SGD on gradients clipped by their global norm."""
    weights = [np.float64(weight) for weight in start()]
    velocity = [np.zeros_like(weight) for weight in weights]
    course = Course([], [], flat(velocity), len(given))
    for inputs, targets in given:
        found = gradients(weights, np.float64(inputs), np.float64(targets))
        norm = float(np.linalg.norm(flat(found)))
        rate = LEARNING_RATE * min(1.0, MAX_NORM / norm)
        velocity = [momentum * v - rate * g for v, g in zip(velocity, found, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
        course.weights.append(flat(weights))
        course.norms.append(norm)
    course.velocity = flat(velocity)
    return course


def joined(given: Sequence[Batch], size: int) -> list[Batch]:
    """Join each `size` batches into one."""
    groups = [given[at : at + size] for at in range(0, len(given), size)]
    return [tuple(np.concatenate(part) for part in zip(*group, strict=True)) for group in groups]


def losses(course: Course, given: Sequence[Batch]) -> list[float]:
    """Return the loss of all data before training and after each batch."""
    inputs, targets = (np.concatenate(part) for part in zip(*given, strict=True))
    found = []
    for weights in (flat(start()), *course.weights):
        kernel, bias, output_kernel, output_bias = _shaped(weights)
        predicted = np.tanh(inputs @ kernel + bias) @ output_kernel + output_bias
        found.append(float(np.mean(np.square(predicted - targets))))
    return found


def _shaped(weights: np.ndarray) -> list[np.ndarray]:
    parts = start()
    ends = np.cumsum([part.size for part in parts])[:-1]
    pieces = zip(np.split(weights, ends), parts, strict=True)
    return [piece.reshape(part.shape) for piece, part in pieces]
