"""Norms and thresholds, in float64 from the formula."""

import math
from typing import Any

import numpy as np

from tests.configurations.configuration import Decay, Line

LARGEST = float(np.finfo("float32").max)
SMALLEST_NORMAL = float(np.finfo("float32").tiny)


def norm(gradients: list[np.ndarray], p: float = 2.0) -> float:
    """`(sum |x| ** p) ** (1 / p)` over all entries; `max |x|` for p infinity."""
    entries = np.concatenate([np.abs(np.float64(g)).reshape(-1) for g in gradients] or [[0.0]])
    largest = float(np.max(entries))
    if math.isinf(p) or largest == 0 or not math.isfinite(largest):
        # The maximum of NumPy is NaN if any entry is.
        return largest
    return float(np.sum((entries / largest) ** p) ** (1.0 / p) * largest)


def as_float32(number: float) -> float:
    """Return a number in the range of float32: 0 below 1.2e-38, a finite one at most 3.4e38."""
    if math.isfinite(number) and abs(number) > LARGEST:
        return math.copysign(LARGEST, number)
    with np.errstate(over="ignore", under="ignore"):
        held = float(np.float32(number))
    return 0.0 if abs(held) < SMALLEST_NORMAL else held


def norm_in_float32(number: float) -> float:
    """Return a norm as float32: the largest number for a finite norm above the range."""
    return LARGEST if math.isfinite(number) and number > LARGEST else as_float32(number)


def value_of(threshold: Any, step: int) -> Any:
    """Return a threshold at a step; None stays None."""
    if isinstance(threshold, Decay):
        return threshold.initial * threshold.rate ** (step / threshold.steps)
    if isinstance(threshold, Line):
        return threshold.start + threshold.slope * step
    return threshold
