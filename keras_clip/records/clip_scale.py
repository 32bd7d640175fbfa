"""The scale of a clip, computed on the host for records."""

import numpy as np


def clip_scale(norm: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Scale of a clip to `threshold`: `min(1, threshold / norm)`, NaN if either is NaN.

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
    """Norm after clipping divided by norm before: above 1 if a clipper made it longer.

    Args:
        norm: array of float64, global norms before clipping.
        after: array of float64, global norms after clipping.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm == after, 1.0, after / norm)
