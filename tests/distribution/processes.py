"""Child processes that run one program together, and the functions for such a program."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from tests.distribution.children import results, start


def results_of(program: str, *arguments: str, processes: int = 1, **environment: str) -> list[Any]:
    """Return the last line of each of `processes` that run `program` together.

    The program gets the arguments, its rank, the number of processes and a file to meet by: a
    port that is free now may be taken by the time it is used.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = (str(processes), str(Path(folder) / "meeting"))
        return results(
            [
                start(program, *arguments, str(rank), *meeting, **environment)
                for rank in range(processes)
            ]
        )


def strict_warnings() -> None:
    """Have warnings raise, as in the tests' own process."""
    warnings.simplefilter("error")
    message = "__array__ implementation doesn't accept a copy keyword"
    warnings.filterwarnings("ignore", message, DeprecationWarning)


def message_of(action: Any) -> str:
    """Return type and message of the error of `action`, or its result."""
    try:
        return f"returned {action()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
