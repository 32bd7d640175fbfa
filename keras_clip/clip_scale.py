"""What a clip multiplied by, from the norm before it: on the host, for records."""

import numpy as np


def clip_scale(norm: np.ndarray, clipped_to: np.ndarray) -> np.ndarray:
    """Norm after clipping over norm before: `min(1, clipped_to / norm)`, NaN where unknown.

    Args:
        norm: array of float64, global norms before clipping.
        clipped_to: array of float64, what a larger norm was clipped to; a negative one counts
            as 0.
    """
    limit = np.where(clipped_to < 0, 0.0, clipped_to)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(norm > limit, limit / norm, 1.0)
    # An infinite gradient times a factor of 0 is NaN.
    lost = np.isnan(norm) | np.isnan(limit) | (np.isinf(norm) & np.isfinite(limit))
    return np.where(lost, np.nan, scale)
