"""The figure of the demo: the loss of both runs, and what was clipped in each."""

import math
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from keras_clip.demo.training import CHANCE_LOSS, Run
from keras_clip.monitoring import figures
from keras_clip.monitoring.plot_clipping import draw_clipping


def write(plain: Run, clipped: Run, output: Path) -> None:
    """Draw both runs and save the figure at `output`."""
    with figures.style():
        figure = figures.new_figure(height=12.5)
        losses, *norms = figure.subfigures(3, 1, height_ratios=[2, 3, 3])
        draw_losses(losses.subplots(), plain, clipped)
        for part, run in zip(norms, (plain, clipped), strict=True):
            draw_clipping(part, run.record, f"{run.name}: gradient norm before clipping")
        figures.finish(figure, output)


def draw_losses(axes: Any, plain: Run, clipped: Run) -> None:
    """Draw the training loss of each epoch of both runs, and the loss of guessing."""
    # The first is wider, and shows where the second covers it.
    for run, colour, width in ((plain, figures.PALE, 5), (clipped, figures.DARK, 2)):
        losses = run.epochs["loss"]
        label = f"{run.name}: reads {100 * run.accuracy:.0f} % of new digits"
        axes.plot(
            range(1, len(losses) + 1), losses, ".-", label=label, color=colour, linewidth=width
        )
    axes.axhline(CHANCE_LOSS, color="black", linestyle=":", label="guessing")
    both = [*plain.epochs["loss"], *clipped.epochs["loss"]]
    highest = max(filter(math.isfinite, both), default=CHANCE_LOSS)
    # A loss that runs away leaves at the top, so that the rest stays readable.
    axes.set_ylim(0, 1.05 * min(max(highest, CHANCE_LOSS), 3 * CHANCE_LOSS))
    axes.set_title("Training loss: lower is better")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
