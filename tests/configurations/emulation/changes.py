"""The limit of the change of an update, with the accepted error."""

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.configurations.configuration import PATHS
from tests.configurations.emulation.numbers import LARGEST, norm, value_of
from tests.configurations.emulation.rules import ROUNDOFF
from tests.configurations.emulation.update import Arrays

# Norms of eleven entries, and a few operations with them.
_NORMS = 1e-6

# By default weights count at least as if each were this large.
_MINIMUM_RMS = 0.01


@dataclass(frozen=True)
class Range:
    """A number, and the range of other ways to compute it."""

    value: float
    low: float
    high: float


UNMEASURED = Range(math.nan, math.nan, math.nan)


def limit(
    given: Any, step: int, before: tuple[Arrays, Arrays], after: tuple[Arrays, Arrays]
) -> tuple[Range, Range]:
    """Limit the values and errors in `after` in place; return the ratio and the scale."""
    groups = [
        (places, Group(places, value_of(threshold, step), before, after))
        for places, threshold in _groups(given)
    ]
    for places, group in groups:
        for place in places:
            _move(group.factor, place, before, after)
    return _measured([group for _, group in groups])


def _groups(given: Any) -> list[tuple[list[int], Any]]:
    """Places of the variables of each group, and its threshold."""
    kind, threshold, *other = given
    everywhere = list(range(len(PATHS)))
    if kind == "each":
        return [([place], threshold) for place in everywhere]
    if kind == "all":
        return [(everywhere, threshold)]
    head = [place for place in everywhere if re.fullmatch(".*head/.*", PATHS[place])]
    rest = [place for place in everywhere if place not in head]
    groups = [(head, threshold), (rest, other[0])]
    return [(places, own) for places, own in groups if own is not None]


class Group:
    """The norms of some variables and of their change."""

    def __init__(
        self,
        places: list[int],
        ratio: float,
        before: tuple[Arrays, Arrays],
        after: tuple[Arrays, Arrays],
    ) -> None:
        old = [np.float64(before[0][place]) for place in places]
        change = [np.float64(after[0][p]) - o for p, o in zip(places, old, strict=True)]
        errors = [before[1][place] + after[1][place] for place in places]
        held = min(norm(change), LARGEST) if math.isfinite(norm(change)) else norm(change)
        self.change = _around(held, norm(errors) + _NORMS * held)
        smallest = _MINIMUM_RMS * math.sqrt(sum(array.size for array in old))
        weights = max(norm(old), smallest)
        self.weights = _around(weights, norm([before[1][p] for p in places]) + _NORMS * weights)
        self.factor = self._factor(max(ratio, 0.0))

    def _factor(self, ratio: float) -> Range:
        if not math.isfinite(self.change.value):
            return Range(1.0, 1.0, 1.0)
        pairs = (
            (self.weights.value, self.change.value),
            (self.weights.low, self.change.high),
            (self.weights.high, self.change.low),
        )
        return Range(*(min(1.0, ratio * w / c) if c > 0 else 1.0 for w, c in pairs))


def _around(value: float, error: float) -> Range:
    return Range(value, max(value - error, 0.0), value + error)


def _move(
    factor: Range, place: int, before: tuple[Arrays, Arrays], after: tuple[Arrays, Arrays]
) -> None:
    if factor.low == 1.0:
        return
    old, new = np.float64(before[0][place]), np.float64(after[0][place])
    moved = old + factor.value * (new - old) if factor.value < 1.0 else new
    uncertain = max(factor.high - factor.value, factor.value - factor.low)
    error = (1.0 - factor.low) * before[1][place] + factor.high * after[1][place]
    error = error + uncertain * np.abs(new - old)
    after[1][place] = error + 4 * ROUNDOFF * (np.abs(moved) + np.abs(old))
    after[0][place] = moved.astype("float32")


def _measured(groups: list[Group]) -> tuple[Range, Range]:
    change, low, high = (
        _together([getattr(group.change, bound) for group in groups])
        for bound in ("value", "low", "high")
    )
    weights = [_together([getattr(g.weights, b) for g in groups]) for b in ("value", "high", "low")]
    pairs = zip((change, low, high), weights, strict=True)
    # The lower bound of a norm may be 0: then the ratio has no upper one.
    ratio = Range(*(c / w if w != 0 else math.inf for c, w in pairs))
    if not math.isfinite(change) or change == 0:
        return ratio, Range(1.0, 1.0, 1.0)
    limited = _together([group.factor.value * group.change.value for group in groups])
    least = _together([group.factor.low * group.change.low for group in groups])
    most = _together([group.factor.high * group.change.high for group in groups])
    scale = Range(limited / change, least / high, most / low if low > 0 else 1.0)
    return ratio, Range(scale.value, min(scale.low, 1.0), min(scale.high, 1.0))


def _together(norms: list[float]) -> float:
    found = norm([np.array(norms)])
    return min(found, LARGEST) if math.isfinite(found) else found
