"""Starts the processes of rows, and collects their results."""

import json
import socket
from contextlib import ExitStack
from typing import Any

from tests.distribution.processes import results_of
from tests.matrix.rows import Row

Wanted = dict[Row, list[str]]


def evidence(wanted: Wanted) -> dict[tuple[Row, str], dict[str, str | None]]:
    """Return errors, with the wrapper and without, of the columns of rows that share processes."""
    row, *_ = wanted
    assert {other.launch for other in wanted} == {row.launch}
    environment = dict(row.environment)
    if row.backend != "torch" and row.processes > 1:
        environment["MATRIX_WORKERS"] = ",".join(addresses(row.processes))
    cases = json.dumps([row.case(columns) for row, columns in wanted.items()])
    processes = results_of("tests.matrix.program", cases, processes=row.processes, **environment)
    return joined(wanted, processes)


def joined(wanted: Wanted, processes: list[Any]) -> dict[tuple[Row, str], Any]:
    """A cell fails if it fails in one of the processes."""
    found: dict[tuple[Row, str], Any] = {}
    for place, (row, columns) in enumerate(wanted.items()):
        for column in columns:
            each = [process[place][column] for process in processes]
            found[row, column] = {
                kind: next((errors[kind] for errors in each if errors[kind]), None)
                for kind in ("wrapped", "bare")
            }
    return found


def addresses(number: int) -> list[str]:
    """Return free ports; all are held until all are chosen, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
