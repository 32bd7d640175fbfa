"""Records of possible runs, made with fixed seeds."""

import math

import numpy as np


def make_record(norms, thresholds=math.inf, skipped=False):
    """Return the record of norms clipped to thresholds, by the formula in float64."""
    norms = np.asarray(norms, np.float64)
    thresholds = np.broadcast_to(np.asarray(thresholds, np.float64), norms.shape).copy()
    skipped = np.broadcast_to(skipped, norms.shape).copy()
    with np.errstate(all="ignore"):
        scale = np.where(norms > thresholds, thresholds / norms, 1.0)
    scale = np.where(np.isnan(norms), np.nan, scale)
    return {
        "step": np.arange(len(norms)),
        "grad_norm": norms,
        "clip_threshold": thresholds,
        "clip_scale": np.where(skipped, 0.0, scale),
        "skipped": skipped,
        "rolled_back": np.zeros(len(norms), bool),
    }


def lognormal_norms(count, median=1.0, spread=0.5, seed=0):
    """Return norms like those of a healthy run."""
    return median * np.exp(spread * np.random.default_rng(seed).normal(size=count))
