"""Entry of `python -m keras_clip`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from keras_clip.diagnosis.report import report

_PROGRAM = "python -m keras_clip"


class _Parser(argparse.ArgumentParser):
    """A parser that prints errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 for a missing or wrong file."""
    options = _parser().parse_args(arguments)
    try:
        report(options.record, options.output)
    except OSError as error:
        return _fail(f"{error.filename or options.record}: {error.strerror or error}.")
    except (ImportError, ValueError) as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"{_PROGRAM} report: error: {message}", file=sys.stderr)
    return 2


def _parser() -> _Parser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Tools for what keras_clip recorded. "
        "The demo is another program: python -m keras_clip.demo",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "report",
        help="summary, figure and a suggested threshold of a recorded run",
        description="Print what happened to the updates of a run, a diagnosis, and which max_norm "
        "it speaks for, and draw the figure of keras_clip.plot_clipping.",
        epilog="A record is written by keras_clip.ClipMonitor(csv='run.csv') in model.fit.",
        allow_abbrev=False,
    )
    command.add_argument("record", type=Path, metavar="RECORD.csv", help="the record of the run")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FIGURE",
        help="where to write the figure; the suffix chooses the format "
        "(default: RECORD.png beside the record)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
