"""AutoClip with a window, from the formula."""

import numpy as np


class AutoClip:
    """Keeps all norms, and sorts the last `history_size` at each step."""

    def __init__(self, percentile, history_size, min_threshold=0.0, max_growth=np.inf):
        self.percentile = percentile
        self.history_size = history_size
        self.min_threshold = min_threshold
        self.max_growth = max_growth
        self.norms = []

    def threshold(self, norm):
        """Return the threshold of the history with `norm`, or with the most that may enter."""
        known = self._of_window() if self.norms else self.min_threshold
        self.norms.append(min(norm, self.max_growth * known) if self.min_threshold else norm)
        return self._of_window()

    def _of_window(self):
        window = np.array(self.norms[-self.history_size :], dtype=np.float64)
        percentile = float(np.percentile(window, self.percentile, method="linear"))
        return max(percentile, self.min_threshold)
