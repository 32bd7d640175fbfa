"""The figure of the demo: the loss and the clipped part of each run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from keras_clip.demo.training import CHANCE_LOSS, Run
from keras_clip.monitoring import figures
from keras_clip.monitoring.plot_clipping import draw_clipping


def write(runs: Sequence[Run], output: Path) -> None:
    """Draw all runs and save the figure at `output`."""
    heights = [3.1] + [6.0 if "update_ratio" in run.record else 4.7 for run in runs]
    with figures.style():
        figure = figures.new_figure(height=sum(heights))
        losses, *norms = figure.subfigures(len(heights), 1, height_ratios=heights)
        draw_losses(losses.subplots(), runs)
        for part, run in zip(norms, runs, strict=True):
            draw_clipping(part, run.record, f"{run.name}: gradient norm before clipping")
        figures.finish(figure, output)


def draw_losses(axes: Any, runs: Sequence[Run]) -> None:
    """Draw the training loss of each epoch of all runs, and the loss of guessing."""
    # The first line is wider, so that it shows under another one.
    colours = (figures.PALE, figures.DARK, figures.LIGHT)
    for run, colour, width in zip(runs, colours, (5, 2, 2), strict=False):
        losses = run.epochs["loss"]
        label = f"{run.name}: reads {100 * run.accuracy:.0f} % of new digits"
        axes.plot(
            range(1, len(losses) + 1), losses, ".-", label=label, color=colour, linewidth=width
        )
    axes.axhline(CHANCE_LOSS, color="black", linestyle=":", label="guessing")
    found = [loss for run in runs for loss in run.epochs["loss"]]
    highest = max(filter(math.isfinite, found), default=CHANCE_LOSS)
    # A diverging loss leaves the picture at the top, so the rest stays readable.
    axes.set_ylim(0, 1.05 * min(max(highest, CHANCE_LOSS), 3 * CHANCE_LOSS))
    axes.set_title("Training loss: lower is better")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
