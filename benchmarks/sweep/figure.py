"""Draw the final score against the learning rate, a panel for each task.

    python -m benchmarks.sweep.figure

Reads `results/tasks_sweep.json`; writes `docs/images/learning_rates.png`.
"""

from typing import Any

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
# A larger loss leaves the panel at the top.
_TOP = 1.6


def main() -> None:
    cells = load()
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
