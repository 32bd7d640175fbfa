"""The margins of the picture of a run: marks at its edges, counts beside it, shares below it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_clip.monitoring import figures
from keras_clip.monitoring.clipping_summary import is_clipped

_BINS = 40
_MOST_MARKS = 300


def on_log_axis(values: np.ndarray) -> np.ndarray:
    """Return the values, with NaN for the ones that a log axis cannot show."""
    # Near the ends of float64, the squares that matplotlib computes leave its range.
    bounded = np.clip(values, 1e-150, 1e150)
    return np.where(np.isfinite(values) & (values > 0), bounded, np.nan)


def draw_marks(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    """Mark NaN, infinite and zero norms at the edges, and skipped updates."""
    norms, step = record["grad_norm"], record["step"]
    edge = axes.get_xaxis_transform()
    nonfinite = ~np.isfinite(norms)
    skipped, shown = record["skipped"], ~np.isnan(on_log_axis(norms))
    black = {"color": "black", "linestyle": "none", "clip_on": False}
    _mark(axes, step[nonfinite], 0.97, "NaN or infinite", marker="^", transform=edge, **black)
    _mark(axes, step[norms == 0], 0.03, "norm of 0", marker="v", transform=edge, **black)
    cross = {**black, "marker": "x", "markersize": 9, "markeredgewidth": 2.5}
    here, elsewhere = skipped & shown, skipped & ~shown
    _mark(axes, step[here], norms[here], "skipped", **cross)
    # Below the triangle of the same update.
    label = "skipped" if not here.any() else ""
    _mark(axes, step[elsewhere], 0.91, label, transform=edge, **cross)


def draw_rolled_back(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    """Hatch the stretches of updates that were taken back."""
    flags = np.concatenate([[0], record["rolled_back"].astype(int), [0]])
    (starts,), (ends,) = np.nonzero(np.diff(flags) > 0), np.nonzero(np.diff(flags) < 0)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axes.axvspan(
            record["step"][start] - 0.5,
            record["step"][end - 1] + 0.5,
            facecolor="none",
            edgecolor=figures.PALE,
            hatch="//",
            zorder=0,
            label="rolled back" if number == 0 else None,
        )


def _mark(axes: Any, step: np.ndarray, height: Any, label: str, **style: Any) -> None:
    if not step.size:
        return
    # More would cover each other.
    kept = figures.column_starts(step.size, _MOST_MARKS)
    heights = np.broadcast_to(height, step.shape)
    axes.plot(step[kept], heights[kept], label=label, **style)


def draw_counts(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    """Draw the number of updates by norm, clipped or not."""
    from matplotlib.ticker import MaxNLocator

    norms = on_log_axis(record["grad_norm"])
    axes.tick_params(labelleft=False)
    axes.set_xlabel("updates")
    # On top, away from the panel below.
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.spines[["top", "bottom"]].set_visible(True)
    clipped = is_clipped(record)
    parts = [norms[group & ~np.isnan(norms)] for group in (~clipped, clipped)]
    if not any(part.size for part in parts):
        return
    low, high = axes.get_ylim()
    bins = np.geomspace(low, high, num=_BINS + 1)
    axes.hist(
        parts,
        bins=bins,
        orientation="horizontal",
        stacked=True,
        color=[figures.DARK, figures.LIGHT],
    )
    threshold = np.unique(on_log_axis(record["clip_threshold"]))
    # A moving threshold differs among the updates of a bar.
    if threshold.size == 1 and np.isfinite(threshold[0]):
        axes.axhline(threshold[0], color="black", linewidth=2.5, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.xaxis.set_major_formatter(_short_count)


def _short_count(value: float, position: Any) -> str:
    del position
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def draw_share(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    """Draw the share of clipped updates over the steps."""
    clipped, applied = is_clipped(record), ~record["skipped"]
    # A share of fewer than ten updates says little.
    starts = figures.column_starts(clipped.size, min(60, max(1, clipped.size // 10)))
    counts = np.add.reduceat(applied.astype(int), starts)
    share = np.add.reduceat(clipped.astype(int), starts) / np.maximum(counts, 1)
    edges = [*record["step"][starts], record["step"][-1] + 1]
    axes.stairs(100 * share, edges, fill=True, color=figures.LIGHT)
    axes.set(ylim=(0, 100), yticks=[0, 50, 100], ylabel="clipped")
    axes.yaxis.set_major_formatter("{x:.0f} %")
