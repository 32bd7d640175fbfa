"""The picture of a run: norms, threshold, and what was clipped."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_clip.monitoring import figures
from keras_clip.monitoring.as_record import as_record
from keras_clip.monitoring.clipping_margins import (
    draw_counts,
    draw_marks,
    draw_rolled_back,
    draw_share,
    on_log_axis,
)
from keras_clip.monitoring.clipping_summary import (
    ClippingSummary,
    is_clipped,
    percent,
    summarize,
    update_ratios,
)
from keras_clip.monitoring.update_panel import draw_updates

# Up to this number each update is a point; above it, each column summarizes several.
_MOST_POINTS = 400
_COLUMNS = 300


def plot_clipping(
    record: Any, *, path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Any:
    """Draw the norm of each update, the threshold, and the clipped part.

    - The main panel shows the norm before clipping, the threshold and the clipped part over the
      steps, on a log axis. With more than 400 updates, each column shows the smallest, the
      median and the largest norm. NaN, infinite and zero norms are marked at the edges, and a
      hatched area shows the updates that `RollBack` took back.
    - The panel on the right shows the number of updates by norm.
    - The panel below shows `clipped / applied` in up to 60 equal parts of the run.
    - With `max_update_ratio`, a panel shows the ratio of each update to the weights, and the
      part that the limit cut off.

    Write the figure as the last line of a notebook's cell to see it; elsewhere in a cell call
    `display(figure)`. It is not a figure of pyplot, so `plt.show()` does not show it.

    Args:
        record: a `ClipMonitor`, a `ClippedOptimizer`, the `History` that `model.fit` returned, a
            record, or the path of its CSV file, as for `suggest_max_norm`.
        path: file to write the figure to; the suffix chooses the format. Defaults to None, no
            file.
        title: str above the figure. Defaults to None, "Gradient norm before clipping".

    Returns:
        The `matplotlib.figure.Figure`, 1200 x 720 pixels, or 1200 x 960 with update ratios.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `record` is something else.
        ValueError: `record` has no column `grad_norm`, or its model has several wrappers.

    Example:
        >>> import numpy as np
        >>> from keras_clip import plot_clipping
        >>> norms = np.random.default_rng(0).lognormal(size=200)
        >>> figure = plot_clipping({"grad_norm": norms, "clip_threshold": np.full(200, 1.5)})
    """
    with figures.style():
        record = as_record(record)
        figure = figures.new_figure(height=8.0 if update_ratios(record).size else 6.0)
        draw_clipping(figure, record, title or "Gradient norm before clipping")
        figures.finish(figure, path)
    return figure


def draw_clipping(figure: Any, record: Any, title: str) -> None:
    """Draw the picture of `plot_clipping` into a figure or a subfigure."""
    columns = as_record(record)
    summary = summarize(columns)
    observes_only = bool(np.isposinf(columns["clip_threshold"]).all())
    _draw(figure, columns, summary)
    figure.suptitle(
        f"{title}\n{_headline(summary, observes_only)}",
        x=0.01,
        horizontalalignment="left",
        fontsize="medium",
    )


def _headline(summary: ClippingSummary, observes_only: bool) -> str:
    share = summary.clipped_fraction
    parts = [f"{summary.updates:,} updates"]
    if share is not None:
        parts = [f"clipped: {percent(share)} of {summary.applied:,} updates"]
    if observes_only:
        parts = [f"{summary.updates:,} updates observed, none clipped"]
    if summary.skipped:
        parts.append(f"skipped: {summary.skipped:,}")
    if summary.rolled_back:
        parts.append(f"rolled back: {summary.rolled_back:,}")
    if summary.limited_fraction is not None:
        parts.append(f"limited: {percent(summary.limited_fraction)}")
    if summary.nonfinite:
        parts.append(f"NaN or infinite: {summary.nonfinite:,}")
    return ",  ".join(parts)


def _draw(figure: Any, record: Mapping[str, np.ndarray], summary: ClippingSummary) -> None:
    from matplotlib.ticker import MaxNLocator

    below = [draw_share] if summary.clipped else []
    if summary.limited is not None:
        below.append(draw_updates)
    heights = [5] + [1 if draw is draw_share else 2 for draw in below]
    grid = figure.add_gridspec(
        len(heights), 2, width_ratios=[5, 1], height_ratios=heights if below else None
    )
    norms = figure.add_subplot(grid[0, 0])
    counts = figure.add_subplot(grid[0, 1], sharey=norms)
    _scale_norms(norms, record)
    if record["grad_norm"].size > _MOST_POINTS:
        _draw_columns(norms, record)
    else:
        _draw_points(norms, record)
    draw_marks(norms, record)
    draw_rolled_back(norms, record)
    draw_counts(counts, record)
    last = norms
    for row, draw in enumerate(below, start=1):
        last.tick_params(labelbottom=False)
        last = figure.add_subplot(grid[row, 0], sharex=norms)
        draw(last, record)
    last.set_xlabel("step")
    last.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    last.xaxis.set_major_formatter("{x:,.0f}")
    handles, labels = norms.get_legend_handles_labels()
    if summary.limited is not None:
        handles, labels = map(list.__add__, (handles, labels), last.get_legend_handles_labels())
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small"
        )


def _scale_norms(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = on_log_axis(np.concatenate([record["grad_norm"], record["clip_threshold"]]))
    low, high = np.log10([np.nanmin(shown), np.nanmax(shown)]) if any(shown > 0) else (-1.0, 1.0)
    # Leave room for the marks at the edges.
    room = max(0.12 * (high - low), 0.15)
    axes.set_yscale("log")
    axes.set_ylim(*10.0 ** np.array([low - room, high + room]))
    axes.set_ylabel("global norm")
    if high - low < 2:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    if low > -4 and high < 5:
        axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_points(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    step, norms = record["step"], on_log_axis(record["grad_norm"])
    threshold = on_log_axis(record["clip_threshold"])
    clipped = is_clipped(record)
    axes.plot(step, norms, color=figures.DARK, linewidth=0.8, alpha=0.5)
    axes.plot(step[~clipped], norms[~clipped], ".", color=figures.DARK, label="norm of an update")
    if clipped.any():
        floor = np.where(np.isnan(threshold), norms, threshold)
        axes.vlines(step[clipped], floor[clipped], norms[clipped], color=figures.LIGHT, linewidth=2)
        axes.plot(
            step[clipped],
            norms[clipped],
            "o",
            color=figures.LIGHT,
            markeredgecolor="black",
            label="clipped: scaled down to the threshold"
            if not np.isnan(threshold).all()
            else "clipped",
        )
    _draw_threshold(axes, step, threshold)


def _draw_columns(axes: Any, record: Mapping[str, np.ndarray]) -> None:
    norms = on_log_axis(record["grad_norm"])
    starts = figures.column_starts(norms.size, _COLUMNS)
    step = record["step"][starts]
    # A NaN only where a column has nothing else.
    low, high = np.fmin.reduceat(norms, starts), np.fmax.reduceat(norms, starts)
    threshold = _medians(on_log_axis(record["clip_threshold"]), starts)
    axes.fill_between(
        step, low, high, color=figures.PALE, linewidth=0, label="smallest to largest norm"
    )
    with np.errstate(invalid="ignore"):
        above = high > threshold
    if above.any():
        axes.fill_between(
            step,
            threshold,
            high,
            where=above,
            color=figures.LIGHT,
            linewidth=0,
            label="cut off by clipping",
        )
    axes.plot(step, _medians(norms, starts), color=figures.DARK, linewidth=1.5, label="median norm")
    _draw_threshold(axes, step, threshold)


def _medians(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    groups = [group[~np.isnan(group)] for group in np.split(values, starts[1:])]
    return np.array([np.median(group) if group.size else np.nan for group in groups])


def _draw_threshold(axes: Any, step: np.ndarray, threshold: np.ndarray) -> None:
    if np.isnan(threshold).all():
        return
    axes.plot(
        step,
        threshold,
        color="black",
        linewidth=2.5,
        linestyle="--",
        label="threshold",
    )
