"""Vectors from reference implementations."""

import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "vectors"


class Vectors:
    """One file of `tests/vectors`: cases, their parameters, inputs and outputs."""

    def __init__(self, name: str) -> None:
        self._archive = np.load(FOLDER / name)
        self.cases: dict[str, dict[str, Any]] = json.loads(str(self._archive["meta"]))["cases"]

    def arrays(self, case: str, stem: str) -> list[np.ndarray]:
        """The array of each variable, `case/stem0`, `case/stem1`, ..."""
        return [self._archive[f"{case}/{stem}{i}"] for i in range(self.cases[case]["n"])]

    def array(self, key: str) -> np.ndarray:
        """One array."""
        return self._archive[key]
