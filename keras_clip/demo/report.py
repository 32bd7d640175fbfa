"""The end of the demo: the table of all runs, and a conclusion."""

import math
from collections.abc import Sequence
from pathlib import Path

from keras_clip.demo.data import CLASSES
from keras_clip.demo.training import CHANCE_LOSS, Run, short
from keras_clip.monitoring.clipping_summary import percent, summarize

_LEGEND = f"""\
diverged: the training loss of the last epoch is not finite, or not below ln(10) = \
{CHANCE_LOSS:.3f},
          the loss of giving all ten digits the same probability.
gradient norms are those before clipping."""


def table(runs: Sequence[Run]) -> str:
    """Return the runs side by side, in aligned plain text."""
    rows = [["", *(run.name for run in runs)]] + [
        [label, *map(describe, runs)]
        for label, describe in (
            ("final training loss", lambda run: short(run.final_loss)),
            ("validation accuracy", lambda run: f"{100 * run.accuracy:.0f} %"),
            ("diverged", _diverged),
            # NaN if any norm is NaN.
            ("largest gradient norm", lambda run: short(run.record["grad_norm"].max())),
            ("steps clipped", _clipped),
            ("steps limited", _limited),
        )
    ]
    first, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for label, *cells in rows:
        aligned = (f"   {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(f"{label:<{first}}{''.join(aligned)}")
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, "", _LEGEND])


def conclusion(runs: Sequence[Run], output: Path) -> str:
    """Return the conclusion, and where the figure is."""
    plain, *others = runs
    seen = [
        f"You saw {plain.name} {_verb(plain)}: it reads {100 * plain.accuracy:.0f} % of the "
        f"held-out digits (guessing: {100 / CLASSES:.0f} %)."
    ]
    for run in others:
        seen.append(
            f"You saw {run.name} {_verb(run)}, from the same start and with the same data: "
            f"it reads {100 * run.accuracy:.0f} %."
        )
    return "\n".join([*seen, f"The figure is in {output}."])


def _verb(run: Run) -> str:
    if run.diverged:
        return "diverge"
    return "learn" if run.accuracy > 0.5 else "learn little"


def _diverged(run: Run) -> str:
    if not math.isfinite(run.final_loss):
        return "yes: loss not finite"
    return "yes: no better than guessing" if run.diverged else "no"


def _limited(run: Run) -> str:
    share = summarize(run.record).limited_fraction
    return "no limit" if share is None else percent(share)


def _clipped(run: Run) -> str:
    if (run.record["clip_threshold"] == math.inf).all():
        return "only observed"
    share = summarize(run.record).clipped_fraction
    return "not known" if share is None else percent(share)
