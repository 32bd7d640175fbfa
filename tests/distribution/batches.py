"""Batches, their unequal shares, and how far apart two runs on them end."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tests.support.models import data

STEPS = 50
BATCH = 16


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of `data` with growing scale, so that shares of a batch are unequal."""
    inputs, targets = data()
    rows = (np.arange(BATCH) + BATCH * step) % len(inputs)
    return inputs[rows], targets[rows]


def unequal_shares(replicas: int) -> list[slice]:
    """Return a share of a batch for each replica; with eight, the first share is empty."""
    ends = BATCH * np.arange(replicas + 1) ** 2 // replicas**2
    return [slice(start, end) for start, end in pairwise(ends)]


def as_lists(arrays: Sequence[np.ndarray]) -> list[Any]:
    """Return arrays in a form for JSON."""
    return [np.asarray(array).tolist() for array in arrays]


def norm_of(arrays: Sequence[Any], subtracted: Sequence[Any]) -> float:
    """Return the norm of the difference of two lists of arrays."""
    pairs = zip(arrays, subtracted, strict=True)
    squares = [np.sum(np.square(np.subtract(a, b, dtype="float64"))) for a, b in pairs]
    return float(np.sqrt(sum(squares)))


def difference(weights: Sequence[Any], expected: Sequence[Any]) -> float:
    """Norm of the difference of all weights, relative to their norm."""
    pairs = [_without_common_nan(*pair) for pair in zip(weights, expected, strict=True)]
    weights, expected = [list(arrays) for arrays in zip(*pairs, strict=True)]
    zeros = [np.zeros_like(array) for array in expected]
    return norm_of(weights, expected) / norm_of(expected, zeros)


def _without_common_nan(one: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    """A clipper without a threshold has NaN in the history of every run."""
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    both = np.isnan(one) & np.isnan(other)
    return np.where(both, 0.0, one), np.where(both, 0.0, other)
