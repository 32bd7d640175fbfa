"""The picture of a variable record: the norm of each gradient over time."""

import os
from typing import Any

import numpy as np

from keras_clip.monitoring import figures
from keras_clip.monitoring.as_record import is_table, one_length
from keras_clip.monitoring.record_csv import read_variables_csv

_COLUMNS = 200
_MOST_LABELS = 40
_LONGEST_LABEL = 34
_NO_NUMBER = "#d62728"

_ACCEPTED = (
    "a variable record (a dict or DataFrame of 'step' and a column for each variable, as "
    "ClipMonitor(per_variable=True).variable_norms is), the path of a CSV file of one, or the "
    "ClipMonitor"
)


def plot_variables(
    record: Any, *, path: str | os.PathLike[str] | None = None, title: str | None = None
) -> Any:
    """Draw the norm of each variable's gradient over time, as a heat map.

    Each variable has a row, the model's first on top. Time goes from left to right. The colour
    is `log10(norm)`, and the colour bar shows the norm. If the record has more than 200 rows,
    each column of the picture shows the largest norm of several. A cell is hatched if one of its
    norms is NaN or infinite, and white if all are 0. Up to 40 variables are all named; among
    more, some are.

    Args:
        record: a `ClipMonitor(per_variable=True)`, its `variable_norms`, a dict or DataFrame of
            the same form, or the path of its CSV file.
        path: file to write the figure to; the suffix chooses the format. Defaults to None, no
            file.
        title: str above the figure. Defaults to None, "Gradient norm of each variable".

    Returns:
        The `matplotlib.figure.Figure`, 1200 pixels wide, to show as the one of `plot_clipping`.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `record` is something else.
        ValueError: `record` has no column `step`, no variable or no row, or the file is not
            a variable record.

    Example:
        >>> import numpy as np
        >>> from keras_clip import plot_variables
        >>> norms = np.random.default_rng(0).lognormal(size=(2, 50))
        >>> record = {"step": np.arange(50), "rnn/kernel": norms[0], "dense/kernel": norms[1]}
        >>> figure = plot_variables(record)
    """
    names, step, norms = _variables_of(record)
    with figures.style():
        figure = figures.new_figure(height=2.6 + 0.26 * min(max(len(names), 4), _MOST_LABELS))
        _draw(figure, names, step, norms)
        figure.suptitle(
            title or "Gradient norm of each variable", x=0.01, horizontalalignment="left"
        )
        figures.finish(figure, path)
    return figure


def _variables_of(record: Any) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the names, the steps, and the norms with a row for each variable."""
    if isinstance(record, str | os.PathLike):
        record = read_variables_csv(record)
    elif not is_table(record) and hasattr(record, "variable_norms"):
        record = record.variable_norms
        if list(record) == ["step"]:
            raise ValueError(
                "No norms of variables were recorded. Train with ClipMonitor(per_variable=True), "
                "or call optimizer.record_variable_norms() before the first step."
            )
    if not is_table(record):
        raise TypeError(
            f"Expected {_ACCEPTED}. Received: {record!r} of type {type(record).__name__}."
        )
    columns = {str(name): np.asarray(record[name]) for name in record.keys()}  # noqa: SIM118
    if "grad_norm" in columns and "clip_scale" in columns:
        raise ValueError(
            f"This is a record of the global norm, for plot_clipping. Expected {_ACCEPTED}."
        )
    names = [name for name in columns if name != "step"]
    if "step" not in columns or not names or not columns["step"].size:
        raise ValueError(
            "A variable record has a column 'step', at least one for a variable, and at least one "
            f"row. Received the columns {list(columns)}."
        )
    one_length(columns)
    norms = np.array([columns[name] for name in names], np.float64)
    if (norms < 0).any():
        raise ValueError(f"A norm is at least 0. Received {norms[norms < 0][0]}.")
    return names, columns["step"], norms


def _draw(figure: Any, names: list[str], step: np.ndarray, norms: np.ndarray) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    starts = figures.column_starts(step.size, _COLUMNS)
    # Infinity, like NaN, has no colour.
    cells = np.maximum.reduceat(np.where(np.isfinite(norms), norms, np.nan), starts, axis=1)
    # matplotlib looks up colours in float32.
    cells = np.where(cells == 0, 0, np.clip(cells, 1e-30, 1e30))
    positive = cells[cells > 0]
    low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
    if low == high:
        low, high = low / 2, high * 2
    axes = figure.add_subplot()
    colours = colormaps["cividis"].with_extremes(under="white", bad=(0, 0, 0, 0))
    picture = axes.imshow(
        # Below the lowest, where a logarithm still exists: the colour of zero.
        np.where(cells == 0, low / 2, cells),
        cmap=colours,
        norm=LogNorm(low, high),
        aspect="auto",
        interpolation="nearest",
    )
    # Seen through the cells that have no colour.
    axes.patch.set(facecolor=_NO_NUMBER, hatch="////", edgecolor="black")
    axes.spines[["top", "right"]].set_visible(True)
    _label_rows(axes, names)
    _label_steps(axes, step[starts])
    if positive.size:
        _draw_colour_bar(figure, axes, picture, summed_up=starts.size < step.size)
    _explain_other_cells(
        figure, zero=bool((cells == 0).any()), no_number=bool(np.isnan(cells).any())
    )


def _label_rows(axes: Any, names: list[str]) -> None:
    every = -(-len(names) // _MOST_LABELS)
    rows = range(0, len(names), every)
    labels = shortened(names)
    axes.set_yticks(rows, [labels[row] for row in rows], fontsize="small")
    if every > 1:
        axes.set_ylabel(f"{len(names)} variables, every {every}th is named")


def shortened(names: list[str]) -> list[str]:
    """Return paths without their common parts, and long paths without their middle."""
    paths = [name.split("/") for name in names]
    common = set(paths[0]).intersection(*map(set, paths)) if len(paths) > 1 else set()
    # The last part names the variable within its layer.
    labels = ["/".join([*(x for x in path[:-1] if x not in common), path[-1]]) for path in paths]
    labels = labels if len(set(labels)) == len(labels) else names
    short = [_cut(label) for label in labels]
    return short if len(set(short)) == len(short) else labels


def _cut(label: str) -> str:
    # A few whole parts are easier to read than pieces of all.
    first, *rest = label.split("/")
    while len(label) > _LONGEST_LABEL and len(rest) > 1:
        rest = rest[1:]
        label = "/".join([first, "...", *rest])
    half = (_LONGEST_LABEL - 3) // 2
    return label if len(label) <= _LONGEST_LABEL else f"{label[:half]}...{label[-half:]}"


def _label_steps(axes: Any, step: np.ndarray) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def step_at(column: float, position: Any) -> str:
        del position
        index = round(column)
        return f"{step[index]:,}" if 0 <= index < step.size else ""

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(step_at))
    axes.set_xlabel("step")


def _draw_colour_bar(figure: Any, axes: Any, picture: Any, summed_up: bool) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = np.log10(picture.get_clim())
    # As tall as all rows together.
    slender = 4 * figure.get_figheight()
    bar = figure.colorbar(picture, ax=axes, pad=0.01, fraction=0.05, aspect=slender)
    bar.set_label("largest norm in each cell" if summed_up else "norm")
    if high - low < 2:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    if low > -4 and high < 5:
        bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())


def _explain_other_cells(figure: Any, zero: bool, no_number: bool) -> None:
    from matplotlib.patches import Patch

    patches = []
    if no_number:
        patches.append(
            Patch(facecolor=_NO_NUMBER, hatch="////", edgecolor="black", label="NaN or infinite")
        )
    if zero:
        patches.append(Patch(facecolor="white", edgecolor="black", label="norm of 0: no gradient"))
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False)
