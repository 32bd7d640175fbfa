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
    "cart_pole": "pole on a cart",
    "generative_adversarial": "GAN, bounded critic",
    "mixed_precision": "recurrent, mixed_float16",
}
LOSS_TASKS = {"heavy_tailed_regression", "character_model", "character_model_corrupted"}
# As `Task.failure`, which only the tasks themselves know: a score that is no better has failed.
FAILURES = {
    **dict.fromkeys(TITLES, 20.0),
    "temporal_order": 35.0,
    "heavy_tailed_regression": 1.0,
    "character_model": 3.253,
    "character_model_corrupted": 3.253,
}
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
        chosen_by: the same on the seeds that are not reported.
        has_failed: by setting, for each learning rate, whether any reported run has failed.
    """

    task: str
    rates: np.ndarray
    by_setting: dict[str, np.ndarray]
    chosen_by: dict[str, np.ndarray]
    has_failed: dict[str, np.ndarray]

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

    def place(self, rate: float) -> int | None:
        """Return the position of a learning rate, or None."""
        found = np.flatnonzero(self.rates == rate)
        return int(found[0]) if found.size else None

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


def scores(
    cells: dict[str, Any], task: str, optimizer: str, schedule: str = "constant"
) -> Scores | None:
    """Return the scores of limits that are numbers, or None if they were not trained."""
    own = of_rule(cells, task, optimizer, "number", schedule)
    pair = of_rule(cells, task, optimizer, "default_and_ratio", schedule)
    if own is None or pair is None or not np.array_equal(own.rates, pair.rates):
        return own
    return Scores(
        task,
        own.rates,
        own.by_setting | pair.by_setting,
        own.chosen_by | pair.chosen_by,
        own.has_failed | pair.has_failed,
    )


def of_rule(
    cells: dict[str, Any], task: str, optimizer: str, rule: str, schedule: str = "constant"
) -> Scores | None:
    """Return the scores of a rule, or None if it was not trained."""
    cell = cells.get(f"{task}/{optimizer}/{rule}/{schedule}")
    if cell is None:
        return None
    every = _runs(task, cell)
    is_reported = np.array(cell["seeds"]) < _FIRST_OTHER_SEED
    reported = every[:, :, is_reported]
    failure = FAILURES[task]
    failed = reported >= failure if task in LOSS_TASKS else reported <= failure
    parts = (reported.mean(2), every[:, :, ~is_reported].mean(2), failed.any(2))
    by_part = [dict(zip(cell["settings"], part, strict=True)) for part in parts]
    return Scores(task, np.array(cell["learning_rates"]), *by_part)


def best_unclipped_rate(cells: dict[str, Any], task: str, optimizer: str) -> float | None:
    """Return the learning rate at which the run without a limit scores best, if known."""
    own = scores(cells, task, optimizer)
    return None if own is None else float(own.rates[own.best_rate("none")])


def _runs(task: str, cell: dict[str, Any]) -> np.ndarray:
    """Return the score of each setting, learning rate and seed."""
    every = np.array(cell["score"], dtype=float)
    if task in LOSS_TASKS:
        return np.where(np.isfinite(every), np.minimum(every, _LARGEST_LOSS), _LARGEST_LOSS)
    return 100 * np.nan_to_num(every, nan=0.0)
