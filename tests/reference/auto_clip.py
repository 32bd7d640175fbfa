"""AutoClip with a window, from the formula."""

import numpy as np


class AutoClip:
    """Keeps all norms, and sorts the last `history_size` at each step."""

    def __init__(self, percentile, history_size):
        self.percentile = percentile
        self.history_size = history_size
        self.norms = []

    def threshold(self, norm):
        """Return the percentile of the history with `norm`."""
        self.norms.append(norm)
        window = np.array(self.norms[-self.history_size :], dtype=np.float64)
        return float(np.percentile(window, self.percentile, method="linear"))
