"""The rule `Outliers`, from its formula."""

import numpy as np


class Outliers:
    """All applied norms are kept, and the latest `window` of them compared with each new one."""

    def __init__(self, multiple, window, warm_up):
        self.multiple, self.window, self.warm_up = multiple, window, warm_up
        self.norms = []
        self.in_a_row = 0

    def skips(self, norm):
        """Return whether the norm is skipped; otherwise learn from it."""
        if not np.isfinite(norm):
            return True
        if self._is_above(norm):
            self.in_a_row += 1
            if self.in_a_row == self.window:
                self.norms, self.in_a_row = [], 0
            return True
        self.in_a_row = 0
        if norm > 0:
            self.norms.append(float(norm))
        return False

    def _is_above(self, norm):
        if len(self.norms) < self.warm_up or norm == 0:
            return False
        logarithms = np.log(np.array(self.norms[-self.window :], dtype=np.float64))
        deviation = max(0.1, logarithms.std(ddof=1))
        return np.log(norm) > logarithms.mean() + self.multiple * deviation
