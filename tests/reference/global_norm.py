"""Clipping by the global norm, in NumPy float64 (longdouble where float64 itself is tested)."""

from collections.abc import Sequence

import numpy as np


def global_norm(gradients: Sequence[np.ndarray | None]) -> float:
    """Square root of the sum of all squares."""
    total = np.longdouble(0)
    for gradient in gradients:
        if gradient is not None:
            total += np.sum(np.square(np.asarray(gradient, dtype=np.longdouble)))
    return float(np.sqrt(total))


def clip_by_global_norm(
    gradients: Sequence[np.ndarray | None], max_norm: float
) -> list[np.ndarray | None]:
    """Multiply each gradient by min(1, max_norm / norm)."""
    norm = global_norm(gradients)
    scale = np.longdouble(1) if norm <= max_norm else np.longdouble(max_norm) / norm
    return [
        None if g is None else (np.asarray(g, dtype=np.longdouble) * scale).astype(np.float64)
        for g in gradients
    ]
