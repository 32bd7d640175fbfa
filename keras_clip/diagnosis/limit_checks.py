"""Checks of the limits: a threshold that never acts or always does, steps, skips."""

import numpy as np

from keras_clip.diagnosis.run import Finding, Run, rise
from keras_clip.monitoring.clipping_summary import is_limited, percent, update_ratios

_NEARLY_ALL = 0.95
# Below a tenth, the learning rate in force is not the one that was set.
_SMALL_SCALE = 0.1
_FAR_ABOVE = 10.0
_MANY_SKIPS = 0.01
_FEWEST = 20
# A step of float32 weights below its precision, 6e-8, changes most weights not at all.
_NO_MOVE = 1e-7
_LARGE_MOVE = 0.1


def idle_threshold(run: Run) -> Finding | None:
    """The threshold is so far above all norms that it is no safety net."""
    threshold, norms = run.summary.latest_threshold, run.usable
    if threshold is None or not np.isfinite(threshold) or norms.size < _FEWEST:
        return None
    if run.summary.clipped or threshold < _FAR_ABOVE * norms.max():
        return None
    return Finding(
        "idle threshold",
        f"The threshold of {threshold:.3g} never acted: the largest norm was {norms.max():.3g}.",
        "print(keras_clip.suggest_max_norm(...)) names one that acts on the largest norms.",
    )


def limiter(run: Run) -> Finding | None:
    """Nearly every update is clipped to a small part of its length."""
    clipped = run.summary.clipped_fraction
    if clipped is None or clipped < _NEARLY_ALL or run.summary.applied < _FEWEST:
        return None
    scale = float(np.nanmedian(run.record["clip_scale"][run.is_applied]))
    if scale >= _SMALL_SCALE:
        return None
    effect = "so most weights stay as they are"
    if scale > 0:
        effect = f"which divides the learning rate of SGD by {1 / scale:,.0f}; Adam hardly notices"
    return Finding(
        "limiter",
        f"The clip shortens {percent(clipped)} of the updates, usually to {percent(scale)} of "
        f"their length, {effect}.",
        "If training is slow, raise the threshold; to limit the step of any optimizer, set "
        "max_update_ratio.",
    )


def threshold_follows(run: Run) -> Finding | None:
    """An adaptive threshold rose with the norms that it should limit."""
    thresholds = run.record["clip_threshold"][run.is_applied]
    known = thresholds[np.isfinite(thresholds) & (thresholds > 0)]
    if min(known.size, run.usable.size) < _FEWEST:
        return None
    low, high = rise(known)
    least, largest = rise(run.usable)
    # A schedule may raise the threshold while the norms stay.
    if high <= _FAR_ABOVE * low or largest <= _FAR_ABOVE * least:
        return None
    return Finding(
        "threshold follows the norms",
        f"The threshold rose from {low:.2g} to {high:.2g}: the clipper learned from "
        "norms that exploded.",
        "Use a fixed max_norm, or keras_clip.AutoClip(25, min_threshold=1.0, max_growth=1.5), "
        "whose threshold rises slowly.",
    )


def always_limited(run: Run) -> Finding | None:
    """`max_update_ratio` is the learning rate."""
    limited = run.summary.limited_fraction
    if limited is None or limited < _NEARLY_ALL or run.summary.applied < _FEWEST:
        return None
    return Finding(
        "always limited",
        f"max_update_ratio limits {percent(limited)} of the steps, so it is the learning rate "
        "now: a schedule of the learning rate does nothing until the step falls below the limit.",
        "Give max_update_ratio the schedule, or lower the learning rate.",
    )


def step_size(run: Run) -> Finding | None:
    """Steps that hardly move the weights, or replace them."""
    ratios = update_ratios(run.record)
    if ratios.size < _FEWEST:
        return None
    median = float(np.median(ratios))
    if median < _NO_MOVE:
        return Finding(
            "steps too small",
            f"The usual update moves the weights by {median:.1g} of their norm, which float32 "
            "rounds away.",
            "Raise the learning rate, or look for a clip or a schedule that has brought it to 0.",
        )
    if median > _LARGE_MOVE and not is_limited(run.record).any():
        return Finding(
            "steps too large",
            f"The usual update moves the weights by {percent(median)} of their norm.",
            "Lower the learning rate, or set max_update_ratio=0.003.",
        )
    return None


def frequent_skips(run: Run) -> Finding | None:
    """`skip_above` leaves out ordinary updates."""
    skipped = run.record["skipped"] & np.isfinite(run.norms)
    share = float(skipped.mean()) if skipped.size else 0.0
    if skipped.size < _FEWEST or share <= _MANY_SKIPS:
        return None
    return Finding(
        "frequent skips",
        f"{percent(share)} of the updates were skipped although their norm was finite.",
        "Raise skip_above: what it leaves out should be rare. Or look for the batches that it "
        "leaves out.",
    )
