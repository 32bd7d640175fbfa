"""The clippers without state, in NumPy float64, each written from its formula."""

from collections.abc import Sequence

import numpy as np

Arrays = list[np.ndarray]


def _wide(gradients: Sequence[np.ndarray]) -> Arrays:
    return [np.asarray(gradient, dtype=np.longdouble) for gradient in gradients]


def p_norm(gradients: Sequence[np.ndarray], p: float) -> float:
    """`(sum |x| ** p) ** (1 / p)`, or the largest |x|."""
    entries = np.concatenate([np.abs(g).reshape(-1) for g in _wide(gradients)])
    return float(np.max(entries) if np.isinf(p) else np.sum(entries**p) ** (1 / p))


def clip_by_p_norm(gradients: Sequence[np.ndarray], max_norm: float, p: float) -> Arrays:
    """One factor for all: `min(1, max_norm / norm)`."""
    norm = p_norm(gradients, p)
    factor = 1.0 if norm <= max_norm else max_norm / norm
    return [np.float64(g * factor) for g in _wide(gradients)]


def clip_by_norm(gradients: Sequence[np.ndarray], max_norm: float) -> Arrays:
    """A factor for each by its own norm."""
    return [clip_by_p_norm([gradient], max_norm, 2)[0] for gradient in gradients]


def clip_by_block_rms(gradients: Sequence[np.ndarray], threshold: float) -> Arrays:
    """Each divided by `max(1, rms / threshold)`."""
    clipped = []
    for gradient in _wide(gradients):
        rms = np.sqrt(np.mean(gradient**2))
        clipped.append(np.float64(gradient / max(1.0, rms / threshold)))
    return clipped


def clip_by_value(gradients: Sequence[np.ndarray], low: float, high: float) -> Arrays:
    """Each entry within bounds."""
    return [np.float64(np.minimum(np.maximum(g, low), high)) for g in _wide(gradients)]
