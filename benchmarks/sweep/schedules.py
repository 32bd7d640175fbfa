"""Factors of the learning rate, and of the limit of the step, over a run."""

import numpy as np

_WARMUP = 0.1  # of the steps
_LOWEST = 0.01  # a limit of 0 times infinity would be NaN


def factors(schedule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each step the factors of the learning rate and of `max_update_ratio`.

    `constant` is 1 for both. `cosine` is a linear warm-up and then half a cosine, for the learning
    rate only. `cosine_all` is that for both.
    """
    ones = np.ones(steps, "float32")
    if schedule == "constant":
        return ones, ones
    warmup = max(1, round(_WARMUP * steps))
    step = np.arange(steps)
    falling = 0.5 + 0.5 * np.cos(np.pi * np.clip((step - warmup) / (steps - warmup), 0.0, 1.0))
    curve = np.maximum(np.minimum((step + 1) / warmup, falling), _LOWEST).astype("float32")
    return curve, curve if schedule == "cosine_all" else ones
