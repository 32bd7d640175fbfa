"""ZClip, from the description in section 3 of the paper and the reference's options."""

import numpy as np


class ZClip:
    """Keeps the norms of the warm-up; at its end they give the mean and the variance."""

    def __init__(
        self,
        alpha=0.97,
        z_thresh=2.5,
        max_grad_norm=1.0,
        eps=1e-6,
        warmup_steps=25,
        mode="zscore",
        clip_option="adaptive_scaling",
        clip_factor=1.0,
        skip_update_on_spike=False,
    ):
        self.alpha, self.z_thresh, self.eps = alpha, z_thresh, eps
        self.max_grad_norm = np.inf if max_grad_norm is None else max_grad_norm
        self.warmup_steps = warmup_steps
        self.mode, self.clip_option, self.clip_factor = mode, clip_option, clip_factor
        self.skip = skip_update_on_spike
        self.warmup = []

    def threshold(self, norm):
        """Return the threshold for `norm`; `self.margin` is its distance from the other decision.

        The margin is relative to the norm or the mean, whichever is larger.
        """
        norm = np.float64(norm)
        self.margin = np.inf
        if len(self.warmup) < self.warmup_steps:
            self.warmup.append(norm)
            self.mean, self.variance = np.mean(self.warmup), np.var(self.warmup)
            return min(norm, self.max_grad_norm)
        adaptive = self._adaptive(norm)
        is_spike = adaptive is not None
        effective = adaptive if is_spike else norm
        if not (is_spike and self.skip):
            old, new = self.alpha, 1 - self.alpha
            self.mean = old * self.mean + new * effective
            self.variance = old * self.variance + new * (effective - self.mean) ** 2
        return min(effective, self.max_grad_norm)

    def _adaptive(self, norm):
        deviation = np.sqrt(self.variance)
        eps = self.eps if self.mode == "zscore" else 0.0
        boundary = self.mean + self.z_thresh * (deviation + eps)
        self.margin = abs(norm - boundary) / max(norm, self.mean, 1e-300)
        if not norm > boundary:
            return None
        if self.mode == "percentile":
            return boundary
        if self.clip_option == "mean":
            return self.mean
        ratio = (norm - self.mean) / (deviation + eps) / self.z_thresh
        return self.clip_factor * (self.mean + self.z_thresh * deviation / ratio)
