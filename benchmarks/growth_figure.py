"""The figure of the growth of the clip's cost."""

import json
from pathlib import Path
from typing import Any

AXES = {
    "parameters": "parameters, in 10 variables",
    "variables": "variables, of a million parameters",
    "replicas": "replicas",
}
LIMITS = ("nothing clipped", "all clipped")
# Label, color, line and mark.
STYLES = {
    "keras_clip": ("black", "-", "o"),
    "Keras": ("0.35", "--", "s"),
    "peer": ("0.55", "-.", "^"),
    "limit": ("0.7", ":", None),
    "no clipping": ("0.6", "-", None),
}
NAMES = {"Keras": "Keras, global_clipnorm", "limit": "reading (and writing) the memory"}


def draw_growth(folder: Path) -> None:
    """Draw a row of panels for each measured backend."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = [json.loads(path.read_text()) for path in sorted(folder.glob("growth_*.json"))]
    panels = [
        (own, axis, words)
        for own in results
        for axis in ("parameters", "variables")
        for words in LIMITS
    ]
    panels += [(own, "replicas", "all clipped") for own in results if "replicas" in own["growth"]]
    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(6, 2.1 * rows + 0.6), squeeze=False)
    for panel, (own, axis, words) in zip(axes.flat, panels, strict=False):
        _draw_panel(panel, own, axis, words)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    handles = {}
    for panel in axes.flat:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles[name] = handle
    figure.legend(handles.values(), handles, loc="upper left", ncols=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.55 / figure.get_figheight()))
    figure.savefig(folder / "growth.png", dpi=200)
    plt.close(figure)


def _draw_panel(panel: Any, own: dict[str, Any], axis: str, words: str) -> None:
    points = own["growth"][axis]
    for name in points[0][1]:
        kind, _, state = name.partition(": ")
        kind = kind.split(",")[0]
        if state not in ("", words):
            continue
        color, line, mark = STYLES[kind]
        medians = [measured[name]["milliseconds"]["median"] for _, measured in points]
        label = "peer: TF's, optax's, torch's" if kind == "peer" else NAMES.get(kind, kind)
        counts = [count for count, _ in points]
        panel.plot(counts, medians, color=color, ls=line, marker=mark, ms=4, lw=1.3, label=label)
    panel.set_xscale("log", base=2 if axis == "replicas" else 10)
    panel.set_yscale("linear" if axis == "replicas" else "log")
    panel.set_xlabel(AXES[axis], fontsize=8)
    panel.set_ylabel("ms an update" if axis == "replicas" else "ms a clip", fontsize=8)
    panel.set_title(f"{own['backend']}, {words}", fontsize=8, loc="left")
    panel.tick_params(labelsize=8)
    if axis == "replicas":
        panel.set_ylim(bottom=0)
        panel.set_xticks([count for count, _ in points], [str(count) for count, _ in points])
    panel.minorticks_off()
    panel.grid(color="0.92")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
