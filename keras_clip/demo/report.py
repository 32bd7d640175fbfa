"""What the demo prints: progress, the table, and what was to be seen."""

import math
import sys
from pathlib import Path
from typing import TextIO

from keras_clip.demo.data import CLASSES
from keras_clip.demo.training import CHANCE_LOSS, Epoch, Run

_LEGEND = f"""\
diverged: the training loss of the last epoch is not finite, or not below ln(10) = \
{CHANCE_LOSS:.3f},
          the loss of giving all ten digits the same probability.
gradient norms are those before clipping."""


class Progress:
    """A line for each epoch; on a terminal, one line that is written over.

    Args:
        epochs: how many there will be.
        stream: where to write; standard output by default.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None) -> None:
        self._epochs = epochs
        self._stream = sys.stdout if stream is None else stream
        self._is_terminal = self._stream.isatty()

    def start(self, headline: str) -> None:
        """Announce a run; its first epoch takes longer, because the model is compiled."""
        print(f"\n{headline}", file=self._stream, flush=True)
        if self._is_terminal:
            self._show(f"{self._count(1)}  ...")

    def epoch(self, epoch: Epoch) -> None:
        """Tell how the epoch went."""
        self._show(
            f"{self._count(epoch.number)}"
            f"  loss {_short(epoch.loss):>7}"
            f"  validation accuracy {_percent(epoch.accuracy):>5}"
            f"  largest gradient norm {_short(epoch.largest_norm):>7}"
        )
        if self._is_terminal and epoch.number == self._epochs:
            print(file=self._stream, flush=True)

    def _count(self, number: int) -> str:
        return f"  epoch {number:{len(str(self._epochs))}}/{self._epochs}"

    def _show(self, line: str) -> None:
        # To the start of the line, and away with what was there.
        before, after = ("\r\x1b[2K", "") if self._is_terminal else ("", "\n")
        print(f"{before}{line}", end=after, file=self._stream, flush=True)


def table(plain: Run, clipped: Run) -> str:
    """Return the two runs side by side, in aligned plain text."""
    rows = [("", plain.name, clipped.name)] + [
        (label, describe(plain), describe(clipped))
        for label, describe in (
            ("final training loss", lambda run: _short(run.final_loss)),
            ("validation accuracy", lambda run: _percent(run.accuracy)),
            ("diverged", _diverged),
            ("largest gradient norm", lambda run: _short(run.largest_norm)),
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
        f"You saw {plain.name} {_verb(plain)}: it reads {_percent(plain.accuracy)} of the "
        f"held-out digits (guessing: {_percent(1 / CLASSES)}).\n"
        f"You saw {clipped.name} {_verb(clipped)}, from the same start and with the same data: "
        f"it reads {_percent(clipped.accuracy)}.\n"
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
    return "only observed" if run.max_norm == math.inf else _percent(run.share_clipped)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _short(number: float) -> str:
    """Return about three digits, without an exponent where it reads well."""
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:#.3g}"
