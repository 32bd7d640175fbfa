"""Write the tables of the sweep into `docs/`.

    python -m benchmarks.sweep.tables

Reads `results/tasks_sweep.json` only; imports no framework.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import replace, row
from benchmarks.sweep.regret import Regrets, regrets
from benchmarks.sweep.summary import LOSS_TASKS, TITLES, Scores, load, scores

DOCS = Path(__file__).parents[2] / "docs"
OPTIMIZERS = ("sgd", "adam")
RATIOS = (0.001, 0.003, 0.01, 0.03)
PAIR = "max_norm=1, max_update_ratio=0.003"
FEW = (
    ("recurrent_digits", "sgd"),
    ("convolutional", "sgd"),
    ("vision_transformer", "adam"),
    ("character_model", "adam"),
)
# What a rule that nobody tunes should reach.
_GOOD_MEDIAN, _GOOD_WORST = 2.0, 10.0
# Beyond this the run learned almost nothing.
_FAR = 100.0


def main() -> None:
    cells = load()
    replace(DOCS / "limiting-the-step.md", "learning rates", learning_rates(cells))
    replace(DOCS / "choosing-a-clipper.md", "regret", regret(cells))
    replace(DOCS / "choosing-a-clipper.md", "advice", advice(cells))
    replace(DOCS.parent / "README.md", "steps", few(cells))


def learning_rates(cells: dict[str, Any]) -> list[str]:
    """For each task: the largest distance to the best clip, up to 100 times the learning rate."""
    names = ["`max_norm=1`", *(f"ratio {ratio:g}" for ratio in RATIOS), "0.003, `max_norm=1`"]
    settings = ["max_norm=1", *(f"max_update_ratio={ratio:g}" for ratio in RATIOS), PAIR]
    lines = [row(["task, optimizer", "best clip", *names]), row(["---"] * (len(names) + 2))]
    for task, title in TITLES.items():
        for optimizer in OPTIMIZERS:
            own = scores(cells, task, optimizer)
            if own is None:
                continue
            best = own.best(own.norms())
            shown = f"{best:.3g}" if own.is_loss else f"{best:.0f} %"
            distances = [_largest_distance(own, setting) for setting in settings]
            lines.append(
                row([f"{title}, {optimizer}", shown, *(_distance(task, d) for d in distances)])
            )
    return lines


def few(cells: dict[str, Any]) -> list[str]:
    """For four tasks: the scores at three learning rates."""
    settings = ("none", "max_norm=1", "max_update_ratio=0.003")
    names = ("no clip", "`max_norm=1`", "`max_update_ratio=0.003`")
    lines = [row(["task, optimizer", *names]), row(["---"] * 4)]
    for task, optimizer in FEW:
        own = scores(cells, task, optimizer)
        if own is None:
            continue
        first = own.best_rate("none")
        shown = [
            " / ".join(_score(own, setting, first + further) for further in (0, 2, 4))
            for setting in settings
        ]
        lines.append(row([f"{TITLES[task]}, {optimizer}", *shown]))
    return lines


def _score(own: Scores, setting: str, place: int) -> str:
    score = own.by_setting[setting][place]
    if not own.is_loss:
        return f"{score:.0f} %"
    return f"{score:.2f}" if score < _FAR else "diverges"


def _largest_distance(own: Scores, setting: str) -> float | None:
    if setting not in own.by_setting:
        return None
    first = own.best_rate("none")
    chosen = (own.rates >= 0.99 * own.rates[first]) & (own.rates <= 101 * own.rates[first])
    return float(own.distance(own.by_setting[setting][chosen], own.best(own.norms())).max())


def _distance(task: str, distance: float | None) -> str:
    if distance is None:
        return "-"
    if distance > _FAR:
        return "fails"
    text = f"{max(distance, 0.0):.1f}{' %' if task in LOSS_TASKS else ''}"
    return f"**{text}**" if distance <= 3 else text


def regret(cells: dict[str, Any]) -> list[str]:
    """For each rule: distance to the best threshold of the grid in the same cell."""
    names = [
        "limit",
        "cells",
        "median",
        "worst, supervised",
        "worst of all",
        "diverged",
        "best number: median",
        "worst",
    ]
    lines = [row(names), row(["---"] * len(names))]
    return lines + [_regret_row(own) for own in regrets(cells)]


def advice(cells: dict[str, Any]) -> list[str]:
    """The rule with the best worst case on supervised tasks, and what the default loses."""
    rules = [own for own in regrets(cells) if own.default.size]
    most = max(own.default.size for own in rules)
    everywhere = [own for own in rules if own.default.size == most]
    best = min(everywhere, key=lambda own: float(own.default[own.is_supervised].max()))
    first = next(own for own in rules if own.title == "`max_norm=1`")
    lines = [f"- To tune nothing, take {best.title}. {_losses(best)}"]
    if best is not first:
        lines.append(f"- `max_norm=1` is the default. {_losses(first)}")
    return [*lines, f"- {_reached(best)}"]


def _reached(best: Regrets) -> str:
    aim = "a median of 2 and a worst case of 10"
    supervised = best.default[best.is_supervised]
    if np.median(best.default) > _GOOD_MEDIAN or supervised.max() > _GOOD_WORST:
        return f"No rule reaches {aim}, even on supervised tasks alone."
    if best.default.max() > _GOOD_WORST:
        return f"On supervised tasks {best.title} stays within {aim}. No rule does so on all tasks."
    return f"{best.title} stays within {aim} on all tasks."


def _losses(own: Regrets) -> str:
    lost = own.default > _GOOD_WORST
    far = sorted({name for name, is_far in zip(own.names, lost, strict=True) if is_far})
    where = f" It lost more than 10 on: {'; '.join(far)}." if far else ""
    return (
        f"It lost {np.median(own.default):.1f} in the median, "
        f"{own.default[own.is_supervised].max():.0f} at worst on supervised tasks, "
        f"{own.default.max():.0f} at worst of all.{where}"
    )


def _regret_row(own: Regrets) -> str:
    if not own.default.size:
        return row([own.title, "0", *["-"] * 6])
    diverged = f"{100 * own.diverged.mean():.0f} %"
    tuned = [f"{np.median(own.tuned):.1f}", _worst(own.tuned)] if own.tuned.size else ["-", "-"]
    worst = [_worst(own.default[own.is_supervised]), _worst(own.default)]
    shown = [f"{np.median(own.default):.1f}", *worst, diverged]
    return row([own.title, str(own.default.size), *shown, *tuned])


def _worst(distances: np.ndarray) -> str:
    return "fails" if distances.max() > _FAR else f"{distances.max():.0f}"


if __name__ == "__main__":
    main()
