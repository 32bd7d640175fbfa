"""The files of `tests/vectors`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parents[1] / "vectors"


def load(name: str) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The arrays of a file, and the parameters of each of its cases."""
    archive = np.load(_FOLDER / name)
    return archive, json.loads(str(archive["meta"]))["cases"]


def steps(archive: Any, prefix: str = "", stem: str = "g") -> list[list[np.ndarray]]:
    """Arrays `prefix + stem + i` that hold one entry per step, as a list for each step."""
    arrays = [archive[f"{prefix}{stem}{i}"] for i in range(3)]
    return [list(step) for step in zip(*arrays, strict=True)]


class Vectors:
    """One file with an array for each variable: cases, their parameters, inputs and outputs."""

    def __init__(self, name: str) -> None:
        self._archive, self.cases = load(name)

    def arrays(self, case: str, stem: str) -> list[np.ndarray]:
        """The array of each variable, `case/stem0`, `case/stem1`, ..."""
        return [self._archive[f"{case}/{stem}{i}"] for i in range(self.cases[case]["n"])]
