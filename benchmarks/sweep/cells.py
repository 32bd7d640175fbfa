"""The cells of a sweep, the most useful first."""

import math
from dataclasses import dataclass
from typing import Literal

from benchmarks import tasks

OPTIMIZERS = ("sgd", "adam", "lion")
SCHEDULES = ("constant", "cosine", "cosine_all")
RULES = (
    "number",
    "auto_clip_bounded",
    "default_and_ratio",
    "update_of_each_variable",
    "adaptive_gradient_clipping",
    "auto_clip",
    "z_clip",
    "ada_gc",
    "clip_by_norm",
    "clip_by_value",
    "clip_by_block_rms",
    "z_clip_unbounded",
    "ada_gc_unbounded",
)
# The pages show these at every learning rate.
AT_EVERY_RATE = ("number", "default_and_ratio")
REPORTED_SEEDS = (0, 1, 2, 3, 4)
# Numbers are chosen on these, and not reported on them.
OTHER_SEEDS = (100, 101)
# So many rules come first, on all tasks.
_ADVISED = 2
_SLOW = ("character_model", "character_model_corrupted", "vision_transformer", "convolutional")
# Half powers of ten: from a tenth of the good learning rate to a thousand times it.
_RATES = range(-2, 7)


@dataclass(frozen=True, order=True)
class Cell:
    """One program: a task, an optimizer, a rule with several numbers, a schedule.

    With `near`, a learning rate, only that one and its neighbours are tried.
    """

    task: str
    optimizer: str
    rule: str
    schedule: str
    near: float | None = None

    @property
    def key(self) -> str:
        return "/".join((self.task, self.optimizer, self.rule, self.schedule))


@dataclass(frozen=True)
class Extent:
    """How much of a cell is trained.

    Attributes:
        kind: "full"; or few settings, three learning rates and two seeds, with a twentieth of the
            steps if "quick", or ten times the steps if "long".
    """

    kind: Literal["full", "quick", "long"] = "full"

    @property
    def is_full(self) -> bool:
        return self.kind == "full"

    @property
    def seeds(self) -> tuple[int, ...]:
        if not self.is_full:
            return (REPORTED_SEEDS[0], OTHER_SEEDS[0])
        return (*REPORTED_SEEDS, *OTHER_SEEDS)

    def steps(self, steps: int) -> int:
        return {"full": steps, "quick": max(2, steps // 20), "long": 10 * steps}[self.kind]

    def learning_rates(self, good: float, near: float | None = None) -> list[float]:
        """Return learning rates such as 0.001, 0.003, 0.01, around a good one."""
        middle = round(2 * math.log10(good))
        exponents = _RATES if self.is_full else (0, 2, 4)
        rates = [_half_power(middle + exponent) for exponent in exponents]
        if near is None:
            return rates
        place = rates.index(near)
        return rates[max(0, place - 1) : place + 2]


def _half_power(exponent: int) -> float:
    return float(f"{'3' if exponent % 2 else '1'}e{exponent // 2}")


def plan(
    only: list[str] | None,
    optimizers: list[str],
    rules: list[str],
    schedules: list[str],
) -> list[Cell]:
    """Return the cells to train, the most useful first."""
    cells = [
        Cell(task, optimizer, rule, schedule)
        for task in only or tasks.NAMES
        for optimizer in optimizers
        for rule in rules
        for schedule in schedules
        # Other rules are compared only at a constant learning rate.
        if rule == "number" or schedule == "constant"
    ]
    return sorted(cells, key=_rank)


def _rank(cell: Cell) -> tuple[int, int, bool, bool, int, int]:
    """Sort the advised rules first, then Lion and slow tasks last, then by rule and task."""
    return (
        min(RULES.index(cell.rule), _ADVISED),
        SCHEDULES.index(cell.schedule),
        cell.optimizer == "lion",
        cell.task in _SLOW and cell.rule not in RULES[:_ADVISED],
        RULES.index(cell.rule),
        tasks.NAMES.index(cell.task),
    )
