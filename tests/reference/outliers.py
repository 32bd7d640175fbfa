"""The rule `Outliers`, from its formula."""

import numpy as np


class Outliers:
    """All applied norms and losses are kept, and the latest `window` compared with new ones."""

    def __init__(self, multiple, window, warm_up, of="norm"):
        self.multiple, self.window, self.warm_up, self.of = multiple, window, warm_up, of
        self.logarithms, self.losses = [], []
        self.in_a_row = 0

    def skips(self, norm, loss=0.0):
        """Return whether the update is skipped; otherwise learn from it."""
        if not np.isfinite(norm) or not np.isfinite(loss):
            return True
        if self._is_above(norm, loss):
            self.in_a_row += 1
            if self.in_a_row == self.window:
                self.logarithms, self.losses, self.in_a_row = [], [], 0
            return True
        self.in_a_row = 0
        if norm > 0:
            self.logarithms.append(np.log(float(norm)))
        self.losses.append(float(loss))
        return False

    def _is_above(self, norm, loss):
        by_norm = norm > 0 and np.log(float(norm)) > self._limit(self.logarithms, lambda mean: 0.1)
        by_loss = loss > self._limit(self.losses, lambda mean: 0.1 * abs(mean))
        return {"norm": by_norm, "loss": by_loss, "both": by_norm or by_loss}[self.of]

    def _limit(self, numbers, floor):
        if len(numbers) < self.warm_up:
            return np.inf
        latest = np.array(numbers[-self.window :], dtype=np.float64)
        return latest.mean() + self.multiple * max(floor(latest.mean()), latest.std(ddof=1))
