"""A summary of a sweep: means over seeds, and distances to the best clip."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "tasks_sweep.json"
TITLES = {
    "recurrent_digits": "recurrent network, digits",
    "dense_digits": "dense layers, digits",
    "heavy_tailed_regression": "regression, heavy tails",
    "convolutional": "convolutions, digits",
    "vision_transformer": "vision transformer",
    "character_model": "character model",
    "batch_normalized": "batch normalization",
    "temporal_order": "temporal order",
    "lora": "LoRA",
    "fine_tuning": "fine-tuning",
    "dense_digits_corrupted": "dense, 1 % corrupted",
    "character_model_corrupted": "characters, 1 % corrupted",
}
LOSS_TASKS = {"heavy_tailed_regression", "character_model", "character_model_corrupted"}
# A loss this large only shows that the run has failed.
_LARGEST_LOSS = 1e3
_FIRST_OTHER_SEED = 100


@dataclass(frozen=True)
class Scores:
    """The scores of one cell, means over the reported seeds.

    Attributes:
        task: its name.
        rates: learning rates.
        by_setting: by setting, a score for each learning rate: percent read correctly, or loss.
    """

    task: str
    rates: np.ndarray
    by_setting: dict[str, np.ndarray]

    @property
    def is_loss(self) -> bool:
        """Whether lower is better."""
        return self.task in LOSS_TASKS

    def best_rate(self, setting: str) -> int:
        """Return the position of a setting's best learning rate."""
        own = self.by_setting[setting]
        return int(own.argmin() if self.is_loss else own.argmax())

    def best(self, settings: list[str]) -> float:
        """Return the best score of any of the settings at any learning rate."""
        own = np.concatenate([self.by_setting[setting] for setting in settings])
        return float(own.min() if self.is_loss else own.max())

    def distance(self, score: np.ndarray, best: float) -> np.ndarray:
        """Return how far scores are behind: in points, or in percent of the loss."""
        return 100 * (score - best) / best if self.is_loss else best - score

    def norms(self) -> list[str]:
        """Return the settings that only clip by the global norm, or do not clip."""
        return [s for s in self.by_setting if s == "none" or _is_norm(s)]


def _is_norm(setting: str) -> bool:
    return setting.startswith("max_norm=") and "," not in setting


def load(path: Path = RESULTS) -> dict[str, Any]:
    """Return the cells of a file of results, by key."""
    cells: dict[str, Any] = json.loads(path.read_text())["cells"]
    return cells


def scores(cells: dict[str, Any], task: str, optimizer: str, schedule: str = "constant") -> Scores:
    """Return the scores of limits that are numbers."""
    cell = cells[f"{task}/{optimizer}/number/{schedule}"]
    found = {**_means(task, cell)}
    pair = cells.get(f"{task}/{optimizer}/default_and_ratio/{schedule}")
    if pair is not None:
        found |= _means(task, pair)
    return Scores(task, np.array(cell["learning_rates"]), found)


def of_rule(cells: dict[str, Any], task: str, optimizer: str, rule: str) -> Scores | None:
    """Return the scores of another rule, or None if it was not trained."""
    cell = cells.get(f"{task}/{optimizer}/{rule}/constant")
    if cell is None:
        return None
    return Scores(task, np.array(cell["learning_rates"]), _means(task, cell))


def _means(task: str, cell: dict[str, Any]) -> dict[str, np.ndarray]:
    every = np.array(cell["score"], dtype=float)
    reported = [i for i, seed in enumerate(cell["seeds"]) if seed < _FIRST_OTHER_SEED]
    own = every[:, :, reported]
    if task in LOSS_TASKS:
        own = np.where(np.isfinite(own), np.minimum(own, _LARGEST_LOSS), _LARGEST_LOSS)
    else:
        own = 100 * np.nan_to_num(own, nan=0.0)
    return dict(zip(cell["settings"], own.mean(axis=2), strict=True))
