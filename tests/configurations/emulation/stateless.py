"""The clippers without state."""

import math
from typing import Any

import numpy as np

from tests.configurations.configuration import SHAPES, UNIT_AXES
from tests.configurations.emulation.numbers import norm, value_of
from tests.configurations.emulation.update import Arrays, Update, held, scaled


class Clipper:
    """A clipper with the thresholds that may be assigned, by name."""

    members: tuple[Any, ...] = ()

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def at(self, name: str, update: Update) -> Any:
        """A threshold at the update's step."""
        return value_of(self.arguments[name], update.step)

    def clip(self, update: Update) -> Arrays:
        """The gradients to use instead."""
        raise NotImplementedError

    def running(self, update: Update) -> tuple[float, float]:
        """Return the limited norm, and the limit before this update."""
        raise NotImplementedError

    def used(self, update: Update) -> float:
        """The threshold of the global norm for the record."""
        return math.nan


class ClipByGlobalNorm(Clipper):
    """`g * min(1, max_norm / norm)`."""

    def clip(self, update: Update) -> Arrays:
        size, limit = self.running(update)
        p = self.arguments["norm_type"]
        return scaled(update.gradients, size, limit, update.margins, p)

    def running(self, update: Update) -> tuple[float, float]:
        size = held(norm(update.gradients, self.arguments["norm_type"]))
        return size, self.at("max_norm", update)

    def used(self, update: Update) -> float:
        is_euclidean = self.arguments["norm_type"] == 2.0
        return float(self.at("max_norm", update)) if is_euclidean else math.nan


def _each_scaled(update: Update, limits: list[float]) -> Arrays:
    pairs = zip(update.gradients, limits, strict=True)
    return [scaled([g], norm([g]), limit, update.margins)[0] for g, limit in pairs]


class ClipByNorm(Clipper):
    """`g_i * min(1, max_norm / norm(g_i))`."""

    def clip(self, update: Update) -> Arrays:
        return _each_scaled(update, [self.at("max_norm", update)] * len(update.gradients))


class ClipByBlockRMS(Clipper):
    """`g_i / max(1, rms(g_i) / threshold)`."""

    def clip(self, update: Update) -> Arrays:
        threshold = self.at("threshold", update)
        sizes = [math.prod(SHAPES[place]) for place in update.places]
        return _each_scaled(update, [threshold * math.sqrt(size) for size in sizes])


class ClipByValue(Clipper):
    """`min(max(g, low), high)`; NaN stays."""

    def clip(self, update: Update) -> Arrays:
        if "max_value" in self.arguments:
            high = self.at("max_value", update)
            low = -high
        else:
            low, high = self.at("low", update), self.at("high", update)
        for entry in np.concatenate([g.reshape(-1) for g in update.gradients]):
            update.margins.is_above(entry, high)
            update.margins.is_above(entry, low)
        return [np.minimum(np.maximum(g, low), high) for g in update.gradients]


class AGC(Clipper):
    """`g_u * min(1, clipping * max(norm(w_u), eps) / max(norm(g_u), 1e-6))` for each unit u."""

    def clip(self, update: Update) -> Arrays:
        ratio = self.at("clipping", update)
        triples = zip(update.gradients, update.weights, update.places, strict=True)
        return [self._unitwise(g, w, UNIT_AXES[p], ratio, update) for g, w, p in triples]

    def _unitwise(
        self, gradient: np.ndarray, weight: np.ndarray, axes: Any, ratio: float, update: Update
    ) -> np.ndarray:
        # The first axes of all variables of the model are a unit's inputs.
        assert axes == (0,)
        columns = gradient.reshape(len(gradient), -1).T
        weights = np.float64(weight).reshape(len(gradient), -1).T
        clipped = [
            self._unit(g, ratio * max(norm([w]), self.arguments["eps"]), update)
            if not math.isnan(norm([w]))
            else g * math.nan
            for g, w in zip(columns, weights, strict=True)
        ]
        return np.array(clipped).T.reshape(gradient.shape)

    def _unit(self, gradient: np.ndarray, limit: float, update: Update) -> np.ndarray:
        size = norm([gradient])
        if not update.margins.is_above(size, limit) and not math.isnan(size):
            return gradient
        # The factor of an infinite norm is 0, and infinity times 0 is NaN.
        return gradient * (limit / max(size, 1e-6) if size == size else math.nan)
