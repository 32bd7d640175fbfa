"""The panel of update ratios in the picture of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_clip.monitoring import figures
from keras_clip.monitoring.clipping_margins import on_log_axis
from keras_clip.monitoring.clipping_summary import is_limited

_COLUMNS = 300


def draw_updates(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    """Draw the ratio of each update to the weights, before and after the limit."""
    before = on_log_axis(record["update_ratio"])
    after = on_log_axis(record["update_ratio"] * record["update_scale"])
    starts = figures.column_starts(before.size, _COLUMNS)
    step = record["step"][starts]
    before, after = (np.fmax.reduceat(values, starts) for values in (before, after))
    axes.set_yscale("log")
    if is_limited(record).any():
        axes.fill_between(
            step, after, before, color=figures.LIGHT, linewidth=0, label="cut off by the limit"
        )
    axes.plot(step, after, color=figures.DARK, linewidth=1.5, label="update ratio")
    axes.set_ylabel("update\nratio")
