"""Where training with clipping works: the record of tests, and the tables made of it.

`make matrix` runs the cells, records them in `results/training_matrix.json` and writes the tables.
Imports no framework.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.markdown import row

BACKENDS = ("tensorflow", "jax", "torch")
RESULTS = Path(__file__).parent / "results" / "training_matrix.json"


def record(
    path: Path, backend: str, versions: dict[str, str], cells: dict[str, dict[str, Any]]
) -> None:
    """Merge new cells into the record of all cells."""
    known = json.loads(path.read_text()) if path.exists() else {}
    own = known.setdefault(backend, {"cells": {}})
    own["versions"] = versions
    for label, columns in cells.items():
        own["cells"].setdefault(label, {}).update(columns)
    ordered = {name: known[name] for name in BACKENDS if name in known}
    path.write_text(json.dumps(ordered, indent=1) + "\n")


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text())


def table(results: dict[str, Any]) -> list[str]:
    """Return one line for each row; a cell that does not pass has the number of its reason."""
    numbers = {why: number for number, why in enumerate(reasons(results), start=1)}
    columns = list(next(iter(all_rows(results).values())))
    lines = [row(["", *columns]), "|---" * (1 + len(columns)) + "|"]
    for label, cells in all_rows(results).items():
        lines.append(row([label, *(text(cells[column], numbers) for column in columns)]))
    return lines


def text(cell: dict[str, str], numbers: dict[str, int]) -> str:
    why = cell.get("why")
    return f"{cell['outcome']} ({numbers[why]})" if why else cell["outcome"]


def notes(results: dict[str, Any]) -> list[str]:
    """Return the numbered reasons, and the versions that the cells ran with."""
    numbered = [f"{at}. {escaped(why)}" for at, why in enumerate(reasons(results), start=1)]
    versions = [
        f"keras {own['versions']['keras']} on {backend} {own['versions'][backend]}"
        for backend, own in results.items()
    ]
    return [*numbered, "", f"Seen with {', '.join(versions)}."]


def escaped(text: str) -> str:
    """Keep Markdown from reading underscores and angle brackets outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([_<*])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def reasons(results: dict[str, Any]) -> list[str]:
    cells = [cell for columns in all_rows(results).values() for cell in columns.values()]
    return list(dict.fromkeys(cell["why"] for cell in cells if "why" in cell))


def all_rows(results: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    return {label: cells for own in results.values() for label, cells in own["cells"].items()}
