"""Write the tables of the sweep into `docs/`.

    python -m benchmarks.sweep.tables

Reads `results/tasks_sweep.json` only; imports no framework.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import replace, row
from benchmarks.sweep.summary import LOSS_TASKS, TITLES, Scores, load, of_rule, scores

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
# Beyond this the run learned almost nothing.
_FAR = 100.0

RULES = {
    "default_and_ratio": "`max_norm=1` and `max_update_ratio=0.003`",
    "update_of_each_variable": "`max_update_ratio=0.003`, each variable",
    "adaptive_gradient_clipping": "`AdaptiveGradientClipping`",
    "auto_clip": "`AutoClip`",
    "z_clip": "`ZClip`",
}
DEFAULTS = {
    "default_and_ratio": PAIR,
    "update_of_each_variable": "max_update_ratio=0.003",
    "adaptive_gradient_clipping": "clipping=0.01",
    "auto_clip": "percentile=10",
    "z_clip": "max_grad_norm=1",
}


def main() -> None:
    cells = load()
    replace(DOCS / "limiting-the-step.md", "learning rates", learning_rates(cells))
    replace(DOCS / "choosing-a-clipper.md", "regret", regret(cells))
    replace(DOCS.parent / "README.md", "steps", few(cells))


def learning_rates(cells: dict[str, Any]) -> list[str]:
    """For each task: the largest distance to the best clip, up to 100 times the learning rate."""
    names = ["`max_norm=1`", *(f"ratio {ratio:g}" for ratio in RATIOS), "0.003, `max_norm=1`"]
    settings = ["max_norm=1", *(f"max_update_ratio={ratio:g}" for ratio in RATIOS), PAIR]
    lines = [row(["task, optimizer", "best clip", *names]), row(["---"] * (len(names) + 2))]
    for task, title in TITLES.items():
        for optimizer in OPTIMIZERS:
            own = scores(cells, task, optimizer)
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
    """For each default: distance to the best threshold of the grid in the same cell."""
    lines = [
        row(["limit", "cells", "median", "worst", "lost more than 50"]),
        row(["---"] * 5),
    ]
    fixed = {
        "none": "no clip",
        "max_norm=1": "`max_norm=1`",
        "max_update_ratio=0.003": "`max_update_ratio=0.003`",
        "max_update_ratio=0.01": "`max_update_ratio=0.01`",
        "max_norm=1, max_update_ratio=0.01": "`max_norm=1` and `max_update_ratio=0.01`",
    }
    for setting, title in fixed.items():
        lines.append(_regret_row(title, _regrets(cells, "number", setting)))
    for rule, title in RULES.items():
        lines.append(_regret_row(title, _regrets(cells, rule, DEFAULTS[rule])))
    return lines


def _regrets(cells: dict[str, Any], rule: str, setting: str) -> np.ndarray:
    """For all tasks: at three learning rates around the unclipped run's best one."""
    found = []
    for task in TITLES:
        for optimizer in OPTIMIZERS:
            own = scores(cells, task, optimizer)
            other = own if rule == "number" else of_rule(cells, task, optimizer, rule)
            if other is None:
                continue
            middle = own.best_rate("none")
            for place in range(max(0, middle - 1), min(len(own.rates), middle + 2)):
                norms = np.array([own.by_setting[name][place] for name in own.norms()])
                best = float(norms.min() if own.is_loss else norms.max())
                found.append(float(own.distance(other.by_setting[setting][place], best)))
    return np.array(found)


def _regret_row(title: str, regrets: np.ndarray) -> str:
    if not regrets.size:
        return row([title, "0", "-", "-", "-"])
    worst = "fails" if regrets.max() > _FAR else f"{regrets.max():.0f}"
    failed = f"{100 * np.mean(regrets > 50):.0f} %"
    return row([title, str(regrets.size), f"{np.median(regrets):.1f}", worst, failed])


if __name__ == "__main__":
    main()
