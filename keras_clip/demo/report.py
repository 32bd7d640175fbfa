"""The demo's last words: the table of both runs, and what was to be seen."""

import math
from pathlib import Path

from keras_clip.demo.data import CLASSES
from keras_clip.demo.training import CHANCE_LOSS, Run, short
from keras_clip.monitoring.clipping_summary import percent, summarize

_LEGEND = f"""\
diverged: the training loss of the last epoch is not finite, or not below ln(10) = \
{CHANCE_LOSS:.3f},
          the loss of giving all ten digits the same probability.
gradient norms are those before clipping."""


def table(plain: Run, clipped: Run) -> str:
    """Return the two runs side by side, in aligned plain text."""
    rows = [("", plain.name, clipped.name)] + [
        (label, describe(plain), describe(clipped))
        for label, describe in (
            ("final training loss", lambda run: short(run.final_loss)),
            ("validation accuracy", lambda run: f"{100 * run.accuracy:.0f} %"),
            ("diverged", _diverged),
            # NaN if one of them is NaN.
            ("largest gradient norm", lambda run: short(run.record["grad_norm"].max())),
            ("steps clipped", _clipped),
        )
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{row[0]:<{widths[0]}}   {row[1]:>{widths[1]}}   {row[2]:>{widths[2]}}" for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, "", _LEGEND])


def conclusion(plain: Run, clipped: Run, output: Path) -> str:
    """Return what was to be seen, and where the figure is."""
    return (
        f"You saw {plain.name} {_verb(plain)}: it reads {100 * plain.accuracy:.0f} % of the "
        f"held-out digits (guessing: {100 / CLASSES:.0f} %).\n"
        f"You saw {clipped.name} {_verb(clipped)}, from the same start and with the same data: "
        f"it reads {100 * clipped.accuracy:.0f} %.\n"
        f"The figure is in {output}."
    )


def _verb(run: Run) -> str:
    if run.diverged:
        return "diverge"
    return "learn" if run.accuracy > 0.5 else "learn little"


def _diverged(run: Run) -> str:
    if not math.isfinite(run.final_loss):
        return "yes: loss not finite"
    return "yes: no better than guessing" if run.diverged else "no"


def _clipped(run: Run) -> str:
    if (run.record["clip_threshold"] == math.inf).all():
        return "only observed"
    share = summarize(run.record).clipped_fraction
    return "not known" if share is None else percent(share)
