"""Draw the final score against the learning rate, and the regret of each rule.

    python -m benchmarks.sweep.figure

Reads `results/tasks_sweep.json`; writes `docs/images/learning_rates.png` and `regret.png`.
"""

from typing import Any

import numpy as np

from benchmarks.sweep.regret import Regrets, regrets
from benchmarks.sweep.summary import TITLES, Scores, load, scores
from benchmarks.sweep.tables import DOCS
from keras_clip.monitoring import figures

PANELS = (
    ("recurrent_digits", "sgd"),
    ("vision_transformer", "adam"),
    ("convolutional", "sgd"),
    ("fine_tuning", "adam"),
    ("character_model", "adam"),
    ("lora", "adam"),
)
OUTPUT = DOCS / "images" / "learning_rates.png"
REGRETS = DOCS / "images" / "regret.png"
# Regrets below this are noise; above the other, failures.
_NOISE, _WORST = 1.0, 100.0
# A larger loss leaves the panel at the top.
_TOP = 1.6


def main() -> None:
    cells = load()
    with figures.style():
        own = [each for each in regrets(cells) if each.default.size]
        figure = figures.new_figure(height=1.5 + 0.5 * len(own))
        _draw_regrets(figure.subplots(), own)
        figures.finish(figure, REGRETS)
    with figures.style():
        figure = figures.new_figure(height=10.0)
        axes = figure.subplots(3, 2)
        for own, (task, optimizer) in zip(axes.flat, PANELS, strict=True):
            _draw(own, scores(cells, task, optimizer), f"{TITLES[task]}, {optimizer}")
        for own in axes[-1]:
            own.set_xlabel("learning rate")
        handles, labels = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figures.finish(figure, OUTPUT)


def _draw_regrets(axes: Any, rules: list[Regrets]) -> None:
    """Draw a point for each cell, and a bar at the median; the best median is on top."""
    rules = sorted(rules, key=lambda own: -np.median(own.default))
    for place, own in enumerate(rules):
        shown = np.clip(own.default, 0.0, _WORST)
        axes.plot(shown, np.full(shown.size, place), "o", color=figures.LIGHT, alpha=0.4)
        axes.plot(np.median(shown), place, "|", color=figures.DARK, markersize=22, mew=4)
    axes.set_yticks(range(len(rules)), [_short(own.title) for own in rules])
    axes.set_xscale("symlog", linthresh=_NOISE)
    axes.set_xlim(-0.1, 1.2 * _WORST)
    axes.set_xticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
    axes.grid(axis="x", color=figures.PALE)
    axes.set_title("lost to the best max_norm: median, all cells")
    axes.set_xlabel("points, or percent of the loss")


def _short(title: str) -> str:
    """Return the title of a rule without marks of code, in about thirty letters."""
    title = title.replace("`", "").replace("max_update_ratio=", "ratio ")
    return title.replace(", min_threshold=1, max_growth=1.5", ", 1, 1.5").replace(" and ", ", ")


def _draw(axes: Any, own: Scores, title: str) -> None:
    norms = own.norms()
    chosen = sorted(norms, key=lambda name: own.by_setting[name][own.best_rate(name)])
    best = chosen[0] if own.is_loss else chosen[-1]
    lines = (
        ("no clip", "none", {"color": "black", "linestyle": ":", "linewidth": 2}),
        ("max_norm=1", "max_norm=1", {"color": figures.PALE, "linewidth": 5}),
        ("best max_norm of seven", best, {"color": figures.DARK, "linewidth": 2}),
        (
            "max_update_ratio=0.003",
            "max_update_ratio=0.003",
            {"color": figures.LIGHT, "linewidth": 3, "marker": "o"},
        ),
    )
    for label, setting, looks in lines:
        axes.plot(own.rates, own.by_setting[setting], label=label, **looks)
    axes.set_xscale("log")
    axes.set_title(title)
    lowest = own.best(list(own.by_setting))
    axes.set_ylim(*((0.95 * lowest, _TOP * lowest) if own.is_loss else (0, 102)))
    axes.set_ylabel("loss" if own.is_loss else "correct, %")


if __name__ == "__main__":
    main()
