"""The numbers in the logs of an epoch."""

import math

import numpy as np

from keras_clip.monitoring.clipping_summary import latest_threshold, summarize, update_ratios
from keras_clip.monitoring.merging import since
from keras_clip.records.history import Record


def epoch_logs(record: Record, start: int) -> dict[str, float]:
    """Summarize the updates of a record from step `start` on.

    Skipped updates are counted and change no other number. Without an applied update, the other
    numbers are NaN. A clipper without a threshold for the global norm has no `clip_threshold`.
    """
    rows = since(record, start)
    summary = summarize(rows)
    norms, scales = (rows[name][~rows["skipped"]] for name in ("grad_norm", "clip_scale"))
    fraction, threshold = summary.clipped_fraction, summary.latest_threshold
    logs = {
        "grad_norm": _mean(norms),
        "grad_norm_max": float(norms.max()) if len(norms) else math.nan,
        "grad_norm_clipped": _mean(norms * scales),
        "clipped_fraction": math.nan if fraction is None else fraction,
        "skipped_steps": summary.skipped,
    }
    if "update_ratio" in rows:
        ratios = update_ratios(rows)
        limited = summary.limited_fraction
        logs |= {
            "update_ratio": _mean(ratios),
            "update_ratio_max": float(ratios.max()) if len(ratios) else math.nan,
            "limited_fraction": math.nan if limited is None else limited,
        }
    # A name that was once in the logs stays in them, because History has one list for each.
    if not len(norms) or latest_threshold(record) is not None:
        logs["clip_threshold"] = math.nan if threshold is None else threshold
    return logs


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan
