"""What a clip multiplied by, from the norm before it: on the host, for records."""

import numpy as np


def clip_scale(norm: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Scale by which a norm is clipped: `min(1, threshold / norm)`, NaN where either is NaN.

    Args:
        norm: array of float64, global norms before clipping.
        threshold: array of float64; a negative one counts as 0.
    """
    limit = np.where(threshold < 0, 0.0, threshold)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(norm > limit, limit / norm, 1.0)
    # An infinite gradient times a factor of 0 is NaN.
    lost = np.isnan(norm) | np.isnan(limit) | (np.isinf(norm) & np.isfinite(limit))
    return np.where(lost, np.nan, scale)


def measured_scale(norm: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Norm after clipping over norm before: above 1 for what was made longer.

    Args:
        norm: array of float64, global norms before clipping.
        after: array of float64, global norms after it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm == after, 1.0, after / norm)
