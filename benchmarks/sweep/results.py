"""The file of results: complete after each cell, and read again by a resumed sweep."""

import json
import os
from pathlib import Path
from typing import Any


class Results:
    """Finished cells, by their key.

    Args:
        folder: where the file is.
        kind: that of the sweep's `Extent`; each has its own file.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.path = folder / f"tasks_{'sweep' if kind == 'full' else kind}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._found: dict[str, Any] = {"versions": {}, "cells": {}}
        if self.path.exists():
            self._found = json.loads(self.path.read_text())

    @property
    def cells(self) -> dict[str, Any]:
        cells: dict[str, Any] = self._found["cells"]
        return cells

    def add(self, key: str, cell: dict[str, Any], versions: dict[str, str]) -> None:
        """Write a cell at once: a killed sweep leaves the old file or the new one, never a part."""
        self.cells[key] = cell
        self._found["versions"] = versions
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(_text(self._found))
        os.replace(unfinished, self.path)


def _text(found: dict[str, Any]) -> str:
    """Return one line a cell, so that a diff shows which cells changed."""
    cells = [f"{json.dumps(key)}: {json.dumps(cell)}" for key, cell in found["cells"].items()]
    versions = json.dumps(found["versions"])
    return f'{{"versions": {versions},\n"cells": {{\n' + ",\n".join(cells) + "\n}}\n"
