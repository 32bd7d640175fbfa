"""The common part of all figures: style, file, display in a notebook."""

import io
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from keras_clip.monitoring.whole_files import replace_file

# Distinct in grey as well: one is dark, one is light.
DARK = "#143d73"
LIGHT = "#f08a3c"
PALE = "#b9c7da"

# 1,200 pixels wide; letters stay readable at 600.
WIDTH = 10.0
_STYLE = {
    "font.size": 15,
    "axes.titlesize": 15,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 120,
    "hatch.linewidth": 1.0,
}


def style() -> AbstractContextManager[Any]:
    """Return the context in which a figure is drawn.

    Raises:
        ImportError: matplotlib is not installed; the message says how to install it.
    """
    try:
        import matplotlib.style
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib, which cannot be imported. "
            "Run: pip install 'keras-clip[plot]'",
            name=error.name,
        ) from error
    # Start from the defaults: settings of a notebook do not change the figure.
    return matplotlib.style.context(["default", _STYLE])


def new_figure(height: float) -> Any:
    """Return an empty figure, `height` inches tall, outside of pyplot.

    pyplot would keep the figure in memory, and show it a second time at the end of a notebook's
    cell. This figure has the method by which a notebook shows the last value of a cell.
    """
    from matplotlib.figure import Figure

    class ShownByItself(Figure):
        def _repr_png_(self) -> bytes:
            return _rendered(self, "png")

    return ShownByItself(figsize=(WIDTH, height), layout="constrained")


def _rendered(figure: Any, suffix: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix)
    return buffer.getvalue()


def finish(figure: Any, path: str | os.PathLike[str] | None) -> None:
    """Fix the layout of the figure, and write it to `path` unless that is None.

    The suffix of `path` chooses the format; without one, `.png` is added.

    Raises:
        OSError: the file cannot be written; the message names it. An existing file is unchanged.
        ValueError: matplotlib cannot write the format.
    """
    # matplotlib makes the ticks at its first drawing, with the settings of that moment.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    if path is not None:
        target = Path(path) if Path(path).suffix else Path(f"{os.fspath(path)}.png")
        replace_file(target, _rendered(figure, target.suffix[1:]))


def column_starts(count: int, columns: int) -> np.ndarray:
    """Return the first row of each column if `count` rows share at most `columns` columns."""
    columns = max(1, min(count, columns))
    return np.arange(columns) * count // columns
