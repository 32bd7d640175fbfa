"""The loss of the latest checks, and whether a new one is bad. It lives on the host."""

import math
from collections import deque

import numpy as np

# A loss that hardly varies has a deviation of rounding.
_LEAST_SHARE = 0.01


class LossWatch:
    """Tells whether a loss is NaN, infinite or an outlier among the latest good ones.

    Args:
        multiple: float, standard deviations above the mean at which a loss is an outlier.
        window: int, number of latest good losses; half of them have to be known.
    """

    def __init__(self, multiple: float, window: int) -> None:
        self._multiple = multiple
        self._losses: deque[float] = deque(maxlen=window)
        self._fewest = max(2, window // 2)

    def reason(self, loss: float) -> str | None:
        """Return why a loss is bad, or None."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        limit = self._limit()
        return f"the loss {loss:.4g} is above {limit:.4g}" if loss > limit else None

    def _limit(self) -> float:
        if len(self._losses) < self._fewest:
            return math.inf
        losses = np.array(self._losses)
        mean = losses.mean()
        deviation = max(losses.std(ddof=1), _LEAST_SHARE * abs(mean))
        return float(mean + self._multiple * deviation)

    def learn(self, loss: float) -> None:
        """Add a good loss."""
        self._losses.append(loss)
