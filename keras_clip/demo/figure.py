"""The figure of the demo: loss and gradient norm of both runs, step by step."""

import math
from pathlib import Path
from typing import Any

from keras_clip.demo.options import BadValue
from keras_clip.demo.training import CHANCE_LOSS, Run

# Apart in grey as well: one light, one dark. The first is wider, so that it shows where the
# second lies upon it.
_PLAIN = {"color": "#f08a3c", "linewidth": 2.2}
_CLIPPED = {"color": "#143d73", "linewidth": 1.2}
_CUT_OFF = {"color": "#143d73", "alpha": 0.18, "linewidth": 0}

# 900 pixels wide, with letters that still read at 600.
_STYLE = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.figsize": (7.5, 8),
    "figure.dpi": 120,
}


def check_format(output: Path) -> None:
    """Refuse a file name whose suffix is no image format.

    Raises:
        BadValue: matplotlib cannot write the format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    # matplotlib writes pgf as well, but needs LaTeX to measure its text.
    known = sorted(set(FigureCanvasBase.get_supported_filetypes()) - {"pgf"})
    if output.suffix.lower().removeprefix(".") not in known:
        raise BadValue(
            f"argument --output: expected a file name that ends in one of "
            f"{', '.join('.' + name for name in known)}, received {str(output)!r}."
        )


def write(plain: Run, clipped: Run, output: Path) -> None:
    """Draw both runs and save the figure at `output`."""
    import matplotlib

    # Not pyplot, which may look for a display.
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True)
        _draw_losses(top, plain, clipped)
        _draw_norms(bottom, plain, clipped)
        # Above the axes, where it covers no line whatever the runs look like.
        figure.legend(loc="outside upper center", frameon=False, fontsize="large")
        figure.savefig(output)


def _draw_losses(axes: Any, plain: Run, clipped: Run) -> None:
    for run, style in ((plain, _PLAIN), (clipped, _CLIPPED)):
        label = f"{run.name}: reads {100 * run.accuracy:.0f} % of new digits"
        axes.plot(_steps(run), run.losses, label=label, **style)
    axes.axhline(CHANCE_LOSS, color="black", linestyle=":")
    _write_beside(axes, CHANCE_LOSS, "guessing")
    highest = max(filter(math.isfinite, plain.losses + clipped.losses), default=CHANCE_LOSS)
    # A loss that runs away leaves at the top, rather than pressing the rest flat.
    axes.set_ylim(0, 1.05 * min(max(highest, CHANCE_LOSS), 3 * CHANCE_LOSS))
    axes.set_title("Training loss: lower is better")


def _draw_norms(axes: Any, plain: Run, clipped: Run) -> None:
    axes.plot(_steps(plain), plain.norms, **_PLAIN)
    axes.plot(_steps(clipped), clipped.norms, **_CLIPPED)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    # A log axis has no place for a threshold of 0 or infinity.
    if 0 < clipped.max_norm < math.inf:
        _draw_threshold(axes, clipped)
    axes.set_title("Gradient norm: how long each gradient is")
    axes.set_xlabel("training step")


def _draw_threshold(axes: Any, run: Run) -> None:
    used = [min(norm, run.max_norm) for norm in run.norms]
    axes.fill_between(_steps(run), used, run.norms, label="cut off by clipping", **_CUT_OFF)
    axes.axhline(run.max_norm, color="black", linestyle="--", linewidth=2)
    _write_beside(axes, run.max_norm, f"max_norm\n= {run.max_norm:g}")


def _write_beside(axes: Any, height: float, text: str) -> None:
    """Write what a horizontal line means at its right end, where it covers nothing."""
    axes.annotate(
        text,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        verticalalignment="center",
    )


def _steps(run: Run) -> range:
    return range(1, len(run.norms) + 1)
