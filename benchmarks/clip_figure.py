"""The figure of the time of the clip alone.

python -m benchmarks.clip_figure
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
STATES = ("nothing clipped", "all clipped")
# Color, mark, whether it is filled.
STYLES = {
    "Keras": ("0.45", "s", "Keras, global_clipnorm"),
    "peer": ("0.6", "^", "peer: TensorFlow's, optax's, torch's"),
    "keras_clip": ("black", "o", "keras_clip"),
}


def draw_clip_cost(folder: Path) -> None:
    """Draw the time of each clip as a multiple of the least, of all backends measured."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = [json.loads(path.read_text()) for path in sorted(folder.glob("clip_cost_*.json"))]
    rows = [(own, name) for own in results for name in own["sets"]][::-1]
    figure, axes = plt.subplots(1, 2, figsize=(6, 0.23 * len(rows) + 1.3), sharey=True)
    for panel, state in zip(axes, STATES, strict=True):
        for position, (own, name) in enumerate(rows):
            _draw_row(panel, position, own["sets"][name]["measured"], state)
        panel.axvline(1.0, color="0.4", ls=":", lw=1)
        panel.set_xscale("log")
        panel.set_title(state, fontsize=9, loc="left")
        panel.set_xlabel("times the least", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", color="0.92")
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    labels = [f"{name}, {own['backend']}" for own, name in rows]
    axes[0].set_yticks(range(len(rows)), labels, fontsize=8)
    handles, names = axes[0].get_legend_handles_labels()
    known = dict(zip(names, handles, strict=True))
    figure.legend(
        known.values(),
        known,
        loc="upper left",
        ncols=3,
        fontsize=8,
        frameon=False,
        columnspacing=1.0,
        handletextpad=0.1,
    )
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.28 / figure.get_figheight()))
    figure.savefig(folder / "clip_cost.png", dpi=200)
    plt.close(figure)


def _draw_row(panel: Any, position: int, measured: dict[str, Any], state: str) -> None:
    least = measured[f"limit: {state}"]["milliseconds"]["median"]
    for kind, (color, mark, label) in STYLES.items():
        own = measured[f"{kind}: {state}"]["milliseconds"]
        panel.plot(
            own["median"] / least,
            position,
            mark,
            color=color,
            ms=6 if mark == "o" else 5,
            ls="",
            label=label,
            mfc=color if mark == "o" else "none",
        )
        panel.plot([own["lower"] / least, own["upper"] / least], [position] * 2, color=color, lw=1)


if __name__ == "__main__":
    draw_clip_cost(RESULTS)
