"""The numbers of an epoch, as they stand in its logs."""

import numpy as np

from keras_clip.records.history import Record


def epoch_logs(rows: Record) -> dict[str, float]:
    """Sum up updates; those that were skipped are counted, and count for nothing else.

    Without any update, means and fractions are NaN. There is no `clip_threshold` if the clipper
    has none for the global norm.
    """
    applied = ~rows["skipped"]
    norms, scales = rows["grad_norm"][applied], rows["clip_scale"][applied]
    logs = {
        "grad_norm": _mean(norms),
        "grad_norm_max": float(norms.max()) if len(norms) else float("nan"),
        "grad_norm_clipped": _mean(norms * scales),
        "clipped_fraction": _mean(scales < 1.0),
        "skipped_steps": int(np.count_nonzero(rows["skipped"])),
    }
    thresholds = rows["clip_threshold"]
    if not len(thresholds) or not np.isnan(thresholds).all():
        logs["clip_threshold"] = float(thresholds[-1]) if len(thresholds) else float("nan")
    return logs


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
