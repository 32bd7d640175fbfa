"""The regret of each rule: its distance to the best global-norm threshold in the same cell.

A cell here is a task, an optimizer and one of three learning rates around the best one of the
unclipped run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.sweep.summary import TITLES, Scores, of_rule, scores

OPTIMIZERS = ("sgd", "adam")
UNSUPERVISED = (TITLES["generative_adversarial"], TITLES["cart_pole"])
# Title, rule, default, and the settings to choose the best number from: all, or those that
# start so.
ROWS = (
    ("no clip", "number", "none", None),
    ("`max_norm=1`", "number", "max_norm=1", "max_norm"),
    ("`AutoClip(25, min_threshold=1, max_growth=1.5)`", "auto_clip_bounded", "min_threshold=1", ""),
    ("`max_update_ratio=0.003`", "number", "max_update_ratio=0.003", "max_update_ratio"),
    ("`max_update_ratio=0.01`", "number", "max_update_ratio=0.01", None),
    (
        "`max_norm=1` and `max_update_ratio=0.01`",
        "number",
        "max_norm=1, max_update_ratio=0.01",
        None,
    ),
    (
        "`max_norm=1` and `max_update_ratio=0.003`",
        "default_and_ratio",
        "max_norm=1, max_update_ratio=0.003",
        None,
    ),
    (
        "`max_update_ratio=0.003`, each variable",
        "update_of_each_variable",
        "max_update_ratio=0.003",
        "",
    ),
    ("`AdaptiveGradientClipping()`", "adaptive_gradient_clipping", "clipping=0.01", ""),
    ("`AutoClip()`", "auto_clip", "percentile=10", ""),
    ("`ZClip()`", "z_clip", "max_grad_norm=1", ""),
    ("`ZClip(max_grad_norm=None)`", "z_clip_unbounded", "z_thresh=2.5", ""),
    ("`AdaGC()`", "ada_gc", "max_norm=1", ""),
    ("`AdaGC(max_norm=inf)`", "ada_gc_unbounded", "clip_ratio=1.04", ""),
    ("`ClipByNorm()`", "clip_by_norm", "max_norm=1", ""),
    ("`ClipByValue()`", "clip_by_value", "high=1", ""),
    ("`ClipByBlockRMS()`", "clip_by_block_rms", "threshold=1", ""),
)


@dataclass(frozen=True)
class Regrets:
    """The regrets of a rule over all cells, in points or in percent of the loss.

    Attributes:
        title: of the rule, for tables and figures.
        names: of the cells, such as "LoRA, sgd".
        default: with the default.
        tuned: with the number that was best on the seeds that are not reported. Empty if the
            rule has no grid.
        diverged: whether a run with the default failed, though none failed with some threshold.
        is_supervised: whether the score varies little from seed to seed, as it does where
            examples have targets.
    """

    title: str
    names: list[str]
    default: np.ndarray
    tuned: np.ndarray
    diverged: np.ndarray
    is_supervised: np.ndarray


def regrets(cells: dict[str, Any]) -> list[Regrets]:
    """Return the regrets of all rules."""
    return [_regrets(cells, *row) for row in ROWS]


def _regrets(
    cells: dict[str, Any], title: str, rule: str, default: str, grid: str | None
) -> Regrets:
    places = list(_places(cells, rule))
    found = [
        (
            _regret(own, other, rate, default),
            np.nan if grid is None else _regret(own, other, rate, _best(other, rate, grid)),
            _diverged(own, other, rate, default),
        )
        for _, own, other, rate in places
    ]
    columns = np.array(found, dtype=float).reshape(-1, 3).T
    names = [name for name, *_ in places]
    is_supervised = np.array([not name.startswith(UNSUPERVISED) for name in names], dtype=bool)
    tuned = columns[1][~np.isnan(columns[1])]
    return Regrets(title, names, columns[0], tuned, columns[2], is_supervised)


def _places(cells: dict[str, Any], rule: str) -> Iterator[tuple[str, Scores, Scores, float]]:
    """Yield a name, fixed thresholds, the rule and a learning rate: those that were trained."""
    for task in TITLES:
        for optimizer in OPTIMIZERS:
            own = scores(cells, task, optimizer)
            other = of_rule(cells, task, optimizer, rule)
            if own is None or other is None:
                continue
            middle = own.best_rate("none")
            for rate in own.rates[max(0, middle - 1) : middle + 2]:
                if other.place(rate) is not None:
                    yield f"{TITLES[task]}, {optimizer}", own, other, float(rate)


def _regret(own: Scores, other: Scores, rate: float, setting: str) -> float:
    norms = np.array([own.by_setting[name][own.place(rate)] for name in own.norms()])
    best = float(norms.min() if own.is_loss else norms.max())
    return float(own.distance(other.by_setting[setting][other.place(rate)], best))


def _best(other: Scores, rate: float, grid: str) -> str:
    """Return the setting that is best on the seeds that are not reported."""
    place = other.place(rate)
    alone = [s for s in other.by_setting if s.startswith(grid) and "," not in s]
    chosen = {setting: other.chosen_by[setting][place] for setting in alone}
    return min(chosen, key=chosen.__getitem__) if other.is_loss else max(chosen, key=chosen.get)


def _diverged(own: Scores, other: Scores, rate: float, setting: str) -> bool:
    some_trains = any(not own.has_failed[name][own.place(rate)] for name in own.norms())
    return some_trains and bool(other.has_failed[setting][other.place(rate)])
