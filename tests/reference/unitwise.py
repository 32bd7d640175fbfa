"""Adaptive gradient clipping in NumPy float64, unit by unit."""

import itertools

import numpy as np


def clip_units(gradient, weight, axes, clipping=0.01, eps=1e-3):
    """Loop over the units one by one, as the paper writes it."""
    clipped = np.array(gradient, dtype=np.float64)
    kept = [axis for axis in range(clipped.ndim) if axis not in axes]
    for position in itertools.product(*(range(clipped.shape[axis]) for axis in kept)):
        unit = [slice(None)] * clipped.ndim
        for axis, index in zip(kept, position, strict=True):
            unit[axis] = index
        unit = tuple(unit)
        norm = np.sqrt(np.sum(np.square(clipped[unit])))
        weights = np.sqrt(np.sum(np.square(np.float64(weight[unit]))))
        limit = clipping * max(weights, eps)
        if norm > limit:
            clipped[unit] *= limit / max(norm, 1e-6)
    return clipped
