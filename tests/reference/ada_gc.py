"""AdaGC, from the formula, and with the guard that zeros do not enter gamma."""

import numpy as np


class AdaGC:
    """One variable after another, in plain Python floats."""

    def __init__(
        self, number, clip_ratio=1.04, beta=0.99, eps=1e-6, start_clip_steps=100, max_norm=1.0
    ):
        self.clip_ratio, self.beta, self.eps = clip_ratio, beta, eps
        self.start, self.max_norm = start_clip_steps, max_norm
        self.gamma = [np.inf] * number
        self.step = 0

    def norms_after(self, norms):
        """Return the norm of each clipped gradient; None if a variable has no gradient."""
        self.step += 1
        self.margin = np.inf
        present = [norm for norm in norms if norm is not None]
        total = np.sqrt(np.sum(np.square(np.array(present, dtype=np.longdouble))))
        clip = self._first if self.step <= self.start else self._later
        return [n if n is None else float(clip(i, n, float(total))) for i, n in enumerate(norms)]

    def _first(self, i, norm, total):
        clipped = norm * min(1.0, self.max_norm / max(total + self.eps, 1e-300))
        if clipped > 0:
            self.gamma[i] = min(self.gamma[i], clipped)
        return clipped

    def _later(self, i, norm, total):
        if norm == 0:
            return 0.0
        if self.gamma[i] == np.inf:
            self.gamma[i] = norm
        limit = self.clip_ratio * self.gamma[i]
        self.margin = min(self.margin, abs(norm - limit) / norm)
        entering = min(norm, limit)
        if entering > 0:
            self.gamma[i] = self.beta * self.gamma[i] + (1 - self.beta) * entering
        return limit * norm / (norm + self.eps) if norm > limit else norm
