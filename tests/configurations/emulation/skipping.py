"""Which updates are skipped, the counters, and the errors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.configurations.configuration import Configuration, Learned
from tests.configurations.emulation.numbers import LARGEST, value_of
from tests.configurations.emulation.update import Update


@dataclass(frozen=True)
class Outcome:
    """An error and the variables in its text; None if they are not compared."""

    error: str
    names: tuple[str, ...] | None


class Outliers:
    """The logarithms of the latest applied norms, and the latest applied losses."""

    def __init__(self, rule: Learned) -> None:
        self.rule = rule
        self.logarithms: list[float] = []
        self.losses: list[float] = []
        self.in_a_row = 0

    def skips(self, update: Update, loss: float) -> bool:
        """Whether an update is skipped; learn from it if not."""
        if not math.isfinite(update.norm) or not math.isfinite(loss):
            return True
        if self._is_above(update, loss):
            self.in_a_row += 1
            if self.in_a_row == self.rule.window:
                self.logarithms, self.losses, self.in_a_row = [], [], 0
            return True
        self.in_a_row = 0
        if 0 < update.norm < LARGEST:
            self.logarithms.append(math.log(update.norm))
        self.losses.append(loss)
        return False

    def _is_above(self, update: Update, loss: float) -> bool:
        is_above = False
        if self.rule.of != "loss":
            limit = self._limit(self.logarithms, lambda mean: 0.1)
            # No norm of float32 reaches it.
            bound = math.exp(limit) if limit < math.log(LARGEST) + 1 else math.inf
            is_above = update.margins.is_above(update.norm, bound)
        if self.rule.of != "norm":
            limit = self._limit(self.losses, lambda mean: 0.1 * abs(mean))
            is_above = update.margins.is_above(loss, limit) or is_above
        return is_above

    def _limit(self, numbers: list[float], floor: Callable[[float], float]) -> float:
        if len(numbers) < self.rule.warm_up:
            return math.inf
        latest = np.array(numbers[-self.rule.window :])
        mean = float(latest.mean())
        return mean + self.rule.multiple * max(floor(mean), float(latest.std(ddof=1)))


class Skipping:
    """The counters of a run."""

    def __init__(self, configuration: Configuration) -> None:
        self.nonfinite = configuration.nonfinite
        self.limit = configuration.max_consecutive_skips
        self.skip_above = configuration.skip_above
        learned = isinstance(self.skip_above, Learned)
        self.outliers = Outliers(self.skip_above) if learned else None
        self.skipped_steps = self.zeroed_steps = self.consecutive = 0

    def decides(self, update: Update, clipper: Any, loss: float) -> bool:
        """Whether the update is not applied; without a loss that is read, `loss` is 0."""
        is_finite = math.isfinite(update.norm)
        if self.nonfinite in ("skip", "raise") and not is_finite:
            return True
        if self.skip_above is None:
            return False
        if self.outliers is not None:
            return self.outliers.skips(update, loss)
        size, threshold = clipper.running(update)
        limit = value_of(self.skip_above, update.step) * threshold
        return update.margins.is_above(size, limit) or math.isnan(size)

    def after_skip(self, is_nonfinite: bool, names: list[str]) -> Outcome | None:
        """Count a skipped update; return the error that is due."""
        self.skipped_steps += 1
        self.consecutive += 1
        if self.nonfinite == "raise" and is_nonfinite:
            self.consecutive = 0
            return Outcome("NonFiniteGradientError", tuple(names))
        if self.limit is not None and self.consecutive > self.limit:
            self.consecutive = 0
            return Outcome("TooManySkipsError", None)
        return None
