"""The clippers that learn from earlier norms."""

import math
from typing import Any

import numpy as np

from tests.configurations.configuration import SHAPES
from tests.configurations.emulation.numbers import LARGEST, norm
from tests.configurations.emulation.stateless import Clipper
from tests.configurations.emulation.update import Arrays, Update, scaled


class AutoClip(Clipper):
    """Clips at a percentile of the latest norms, this one included."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.norms: list[float] = []

    def clip(self, update: Update) -> Arrays:
        if update.norm < LARGEST:
            self.norms.append(self._entering(update))
            self.norms = self.norms[-self.arguments["history_size"] :]
        return scaled(update.gradients, update.norm, self._threshold(update), update.margins)

    def _entering(self, update: Update) -> float:
        growth = self.at("max_growth", update)
        if growth is None:
            return update.norm
        known = self._threshold(update) if self.norms else self.at("min_threshold", update)
        return float(min(update.norm, growth * known)) if known > 0 else float(update.norm)

    def _threshold(self, update: Update) -> float:
        if not self.norms:
            return LARGEST
        return max(self._percentile(update), float(self.at("min_threshold", update)))

    def _percentile(self, update: Update) -> float:
        ascending, last = sorted(self.norms), len(self.norms) - 1
        position = min(max(self.at("percentile", update), 0.0), 100.0) / 100.0 * last
        below = int(position)
        lower, upper = ascending[below], ascending[min(below + 1, last)]
        return lower + (position - below) * (upper - lower)

    def running(self, update: Update) -> tuple[float, float]:
        return update.norm, self._threshold(update) if self.norms else math.inf

    def used(self, update: Update) -> float:
        return self._threshold(update)


class ZClip(Clipper):
    """Clips norms that are outliers among earlier norms."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.mean = self.deviation = 0.0
        self.warmup: list[float] = []
        self.bound = math.inf

    def clip(self, update: Update) -> Arrays:
        size = update.norm
        self.bound = self._at_most(self.running(update)[1], update)
        is_warming_up = self._is_warming_up
        limit = None if is_warming_up else self._adaptive(size, update)
        entering = size if limit is None else limit
        if is_warming_up:
            self.warmup.append(size)
            self.mean = float(np.mean(self.warmup))
            self.deviation = float(np.std(self.warmup))
        elif limit is None or not self.arguments["skip_update_on_spike"]:
            self._learn(entering)
        threshold = self._at_most(entering, update)
        return scaled(update.gradients, size, threshold, update.margins)

    @property
    def _is_warming_up(self) -> bool:
        return len(self.warmup) < self.arguments["warmup_steps"]

    def _adaptive(self, size: float, update: Update) -> float | None:
        """Return the limit of a spike, or None if the norm is not a spike."""
        z_thresh, eps = self.at("z_thresh", update), self.arguments["eps"]
        if self.arguments["mode"] == "percentile":
            bound = self.mean + z_thresh * self.deviation
            return bound if update.margins.is_above(size, bound) else None
        if not update.margins.is_above(size, self.mean + z_thresh * (self.deviation + eps)):
            return None
        if self.arguments["clip_option"] == "mean":
            return self.mean
        z = (size - self.mean) / (self.deviation + eps)
        return float(self.arguments["clip_factor"] * (self.mean + z_thresh**2 * self.deviation / z))

    def _learn(self, entering: float) -> None:
        old, new = self.arguments["alpha"], 1.0 - self.arguments["alpha"]
        # Equal numbers leave the mean unchanged.
        self.mean = self.mean + new * (entering - self.mean)
        self.deviation = math.sqrt(old * self.deviation**2 + new * (entering - self.mean) ** 2)

    def _at_most(self, limit: float, update: Update) -> float:
        maximum = self.at("max_grad_norm", update)
        return limit if maximum is None or not limit > maximum else float(maximum)

    def running(self, update: Update) -> tuple[float, float]:
        if self._is_warming_up:
            return update.norm, self._at_most(math.inf, update)
        bound = self.mean + self.at("z_thresh", update) * self.deviation
        # A sum above the range of float32 is infinite there.
        return update.norm, math.inf if bound > LARGEST else bound

    def used(self, update: Update) -> float:
        return self.bound


class AdaGC(Clipper):
    """Clips each gradient near a moving average of its own clipped norms."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.gamma = [math.inf] * len(SHAPES)
        self.count = 0

    def clip(self, update: Update) -> Arrays:
        is_warming_up = self.count < self.arguments["start_clip_steps"]
        limit = self._in_warm_up if is_warming_up else self._after_warm_up
        sizes = [norm([gradient]) for gradient in update.gradients]
        targets = [limit(p, size, update) for p, size in zip(update.places, sizes, strict=True)]
        self.count += is_warming_up
        triples = zip(update.gradients, sizes, targets, strict=True)
        return [scaled([g], size, target, update.margins)[0] for g, size, target in triples]

    def _in_warm_up(self, place: int, size: float, update: Update) -> float:
        max_norm, divisor = self.at("max_norm", update), norm(update.gradients)
        divisor += self.arguments["eps"]
        target = size / divisor * max_norm if update.margins.is_above(divisor, max_norm) else size
        if target > 0:
            self.gamma[place] = min(self.gamma[place], target)
        return target

    def _after_warm_up(self, place: int, size: float, update: Update) -> float:
        known = size if math.isinf(self.gamma[place]) else self.gamma[place]
        limit = self.at("clip_ratio", update) * known
        is_above = update.margins.is_above(size, limit)
        entering = limit if is_above else size
        if entering > 0:
            beta = self.arguments["beta"]
            self.gamma[place] = beta * known + (1.0 - beta) * entering
        return limit * (size / (size + self.arguments["eps"])) if is_above else size
