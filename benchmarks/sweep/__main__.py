"""Train every task with every limit, at learning rates from too low to far too high.

    python -m benchmarks.sweep --quick                    # all tasks, small; five minutes
    python -m benchmarks.sweep --results FOLDER --workers 8 --seconds 300
    python -m benchmarks.sweep --only lora --optimizers adam --rules number
    python -m benchmarks.sweep --near                     # three learning rates for most rules

Runs on Keras with JAX. A cell is a task, an optimizer and a rule. One program trains all its
numbers, learning rates and seeds. Each cell is written as soon as it is done, so a stopped sweep
can resume.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
# Several processes share one device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from benchmarks import tasks
from benchmarks.sweep import cells
from benchmarks.sweep.cells import Cell, Extent
from benchmarks.sweep.results import Results
from benchmarks.sweep.summary import best_unclipped_rate
from benchmarks.sweep.workers import trained

RESULTS = Path(__file__).parents[1] / "results"


def main(given: list[str] | None = None) -> None:
    arguments = _arguments(given)
    started = time.perf_counter()
    extent = Extent(arguments.kind)
    results = Results(arguments.results, extent.kind)
    planned = cells.plan(arguments.only, arguments.optimizers, arguments.rules, arguments.schedules)
    missing = [cell for cell in planned if cell.key not in results.cells]
    print(f"{len(planned)} cells, {len(planned) - len(missing)} of them done", flush=True)

    def due() -> Iterator[Cell]:
        for cell in missing:
            if time.perf_counter() - started > arguments.seconds:
                print("Time is up; run the same command again to go on.", flush=True)
                return
            yield _near(cell, results.cells) if arguments.near else cell

    failed = 0
    for done, (cell, found, versions) in enumerate(trained(due(), extent, arguments.workers), 1):
        passed = time.perf_counter() - started
        if found is None:
            failed += 1
            print(f"{cell.key} failed:\n{versions}", flush=True)
            continue
        results.add(cell.key, found, versions)
        print(f"[{done}/{len(missing)}, {passed:.0f} s] {_line(cell, found)}", flush=True)
    if failed:
        raise SystemExit(f"{failed} cells failed.")


def _near(cell: Cell, found: dict[str, Any]) -> Cell:
    """Return the cell at the learning rates that the tables of other rules read."""
    if cell.rule in cells.AT_EVERY_RATE:
        return cell
    return replace(cell, near=best_unclipped_rate(found, cell.task, cell.optimizer))


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, words in (("quick", "few numbers, short runs"), ("long", "ten times the steps")):
        parser.add_argument(
            f"--{kind}", dest="kind", action="store_const", const=kind, default="full", help=words
        )
    parser.add_argument("--only", nargs="*", choices=tasks.NAMES, help="tasks; by default all")
    parser.add_argument("--optimizers", nargs="*", default=None, choices=cells.OPTIMIZERS)
    parser.add_argument("--rules", nargs="*", default=None, choices=cells.RULES)
    parser.add_argument("--schedules", nargs="*", default=["constant"], choices=cells.SCHEDULES)
    parser.add_argument(
        "--near",
        action="store_true",
        help="train most rules only near the unclipped run's best learning rate",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that share the device")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the file")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="starts no cell after that"
    )
    arguments = parser.parse_args(given)
    is_full = arguments.kind == "full"
    arguments.optimizers = arguments.optimizers or (
        list(cells.OPTIMIZERS) if is_full else ["sgd", "adam"]
    )
    arguments.rules = arguments.rules or (list(cells.RULES) if is_full else ["number"])
    return arguments


def _line(cell: Cell, found: dict[str, Any]) -> str:
    seconds = found["seconds"]
    return f"{cell.key}: compiled in {seconds['compile']} s, ran in {seconds['run']} s"


if __name__ == "__main__":
    main()
