"""AutoClip with a window, from the formula."""

import numpy as np


class AutoClip:
    """All norms are kept and the last `history_size` sorted at each step."""

    def __init__(self, percentile, history_size):
        self.percentile = percentile
        self.history_size = history_size
        self.norms = []

    def threshold(self, norm):
        """The percentile once `norm` has joined the history."""
        self.norms.append(norm)
        window = np.array(self.norms[-self.history_size :], dtype=np.float64)
        return float(np.percentile(window, self.percentile, method="linear"))
