"""Numbers at random, and thresholds that are numbers or functions of the step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.configurations.configuration import Decay, Line


def one_of(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    """Return one of them; `rng.choice` would convert numbers to NumPy scalars."""
    return choices[int(rng.integers(len(choices)))]


def maybe(rng: np.random.Generator, probability: float, make: Callable[[], Any]) -> Any:
    """Return the result of `make`, or None."""
    return make() if rng.random() < probability else None


def draw_size(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a number of four digits whose logarithm is uniform."""
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.4g}")


def draw_threshold(
    rng: np.random.Generator, low: float, high: float, lowest: float = 0.0
) -> float | Decay | Line:
    """Return a number, a schedule, or a callable of the step, never below `lowest`."""
    value = draw_size(rng, low, high)
    kind = one_of(rng, ["number", "number", "number", "schedule", "callable"])
    if kind == "number":
        return value
    if kind == "callable":
        return Line(value, draw_size(rng, 0.01, 0.5) * value)
    grows = lowest > 0 or rng.random() < 0.3
    return Decay(value, int(rng.integers(1, 6)), 1.5 if grows else 0.5)
