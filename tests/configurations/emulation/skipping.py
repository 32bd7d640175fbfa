"""Which updates are skipped, the counters, and the errors."""

import math
from dataclasses import dataclass
from typing import Any

from tests.configurations.configuration import Configuration
from tests.configurations.emulation.numbers import value_of
from tests.configurations.emulation.update import Update


@dataclass(frozen=True)
class Outcome:
    """An error and the variables in its text; None if they are not compared."""

    error: str
    names: tuple[str, ...] | None


class Skipping:
    """The counters of a run."""

    def __init__(self, configuration: Configuration) -> None:
        self.nonfinite = configuration.nonfinite
        self.limit = configuration.max_consecutive_skips
        self.skip_above = configuration.skip_above
        self.skipped_steps = self.zeroed_steps = self.consecutive = 0

    def decides(self, update: Update, clipper: Any) -> bool:
        """Whether the update is not applied."""
        is_finite = math.isfinite(update.norm)
        if self.nonfinite in ("skip", "raise") and not is_finite:
            return True
        if self.skip_above is None:
            return False
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
