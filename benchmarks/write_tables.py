"""Write the measured figures into the tables of `docs/` and of `benchmarks/README.md`.

    python -m benchmarks.write_tables

Reads `results/` only; imports no framework.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import cost_tables, training_matrix
from benchmarks.markdown import replace, row

FOLDER = Path(__file__).parent
PAGES = FOLDER.parent / "docs"
LEARNING_RATES = (0.03, 0.1)
BACKENDS = ("tensorflow", "jax", "torch")

# Name, effect, when to choose it, setting of the measured accuracy.
CLIPPERS = [
    (
        "ClipByGlobalNorm(max_norm=1.0)",
        "one factor for all gradients; other p-norms by `norm_type`",
        "to start with; keeps the direction of the step",
        ("ClipByGlobalNorm()", "ClipByGlobalNorm(0.2)"),
    ),
    (
        "ClipByNorm(max_norm=1.0)",
        "each variable by its own norm",
        "one layer explodes and must not slow the others; replaces `clipnorm`",
        ("ClipByNorm()", "ClipByNorm(0.1)"),
    ),
    (
        "ClipByValue(max_value=1.0)",
        "each entry, to one bound or to `(low, high)`",
        "single entries are extreme; replaces `clipvalue`",
        ("ClipByValue()", "ClipByValue(0.01)"),
    ),
    (
        "ClipByBlockRMS(threshold=1.0)",
        "each variable by its root mean square",
        "one threshold for variables of very different sizes; set it far below 1 for raw gradients",
        ("ClipByBlockRMS()", "ClipByBlockRMS(0.003)"),
    ),
    (
        "AdaptiveGradientClipping(clipping=0.01)",
        "each unit (filter, column, token) by the norm of its weights",
        "large batches, networks without normalization; independent of the loss's scale",
        ("AdaptiveGradientClipping()", "AdaptiveGradientClipping(0.05)"),
    ),
    (
        "AutoClip(percentile=10.0)",
        "the global norm, at a percentile of the latest 10,000 norms",
        "norms that are stable enough to learn from; not for runs that explode from the start",
        ("AutoClip()", "AutoClip(50)"),
    ),
    (
        "ZClip(z_thresh=2.5, max_grad_norm=1.0)",
        "a global norm that is an outlier of a moving mean, or above a bound",
        "rare spikes in a long run; raise `max_grad_norm` if norms are usually above it",
        ("ZClip()", "ZClip(max_grad_norm=0.2)"),
    ),
    (
        "AdaGC(clip_ratio=1.04)",
        "each variable near a moving average of its own norms",
        "experimental",
        ("AdaGC()", "AdaGC(max_norm=0.2)"),
    ),
]


def main() -> None:
    runs = json.loads((FOLDER / "results/clippers_on_digits.json").read_text())["runs"]
    cost = json.loads((FOLDER / "results/clipper_cost.json").read_text())
    replace(PAGES / "choosing-a-clipper.md", "clippers", overview(runs, cost))
    replace(FOLDER / "README.md", "digits", every_run(runs))
    replace(FOLDER / "README.md", "cost", every_cost(cost))
    write_costs(FOLDER / "README.md", FOLDER / "results")
    alone = cost_tables.load(FOLDER / "results", "clip_cost")
    replace(PAGES / "costs.md", "costs", cost_tables.overview(alone))
    matrix = training_matrix.load()
    replace(PAGES / "distributed-training.md", "matrix", training_matrix.table(matrix))
    replace(PAGES / "distributed-training.md", "matrix notes", training_matrix.notes(matrix))


def write_costs(page: Path, results: Path) -> None:
    """Write the cost of clipping against training without it, on a CPU."""
    alone = cost_tables.load(results, "clip_cost")
    replace(page, "clip alone", cost_tables.clip_alone(alone))
    replace(page, "safety", cost_tables.safety(alone))
    replace(page, "whole steps", cost_tables.whole_steps(results))
    eager = cost_tables.load(results, "eager_apply")
    replace(page, "eager updates", cost_tables.eager_updates(eager))
    replace(page, "start", cost_tables.start(cost_tables.load(results, "start_cost")))


def overview(runs: dict[str, Any], cost: dict[str, Any]) -> list[str]:
    lines = [
        "| Clipper | What it clips | When | Accuracy, default | Accuracy, other number | Cost |",
        "|---|---|---|---|---|---|",
    ]
    for name, what, when, (default, other) in CLIPPERS:
        # Two pieces of code: a line may break between them.
        clipper, arguments = name.split("(")
        cells = [f"`{clipper}` `({arguments}`", what, when]
        cells.append(accuracies(runs[default]))
        cells.append(f"{accuracies(runs[other])} with {other[other.index('(') + 1 : -1]}")
        cells.append(costs(cost, name.split("(")[0]))
        lines.append(row(cells))
    return lines


def accuracies(runs: dict[str, Any]) -> str:
    return " / ".join(f"{mean(accuracy_at(runs, rate)):.0%}" for rate in LEARNING_RATES)


def accuracy_at(runs: dict[str, Any], rate: float) -> list[float]:
    pairs = zip(runs["accuracy"], runs["learning_rate"], strict=True)
    return [accuracy for accuracy, own in pairs if own == rate]


def costs(cost: dict[str, Any], name: str) -> str:
    return " / ".join(f"{cost[backend]['measured'][name]['ratio']:.2f}" for backend in BACKENDS)


def every_run(runs: dict[str, Any]) -> list[str]:
    head = ["clipper"]
    for rate in LEARNING_RATES:
        head += [f"accuracy, learning rate {rate}", "diverged", "clipped steps"]
    lines = [row(head), "|---" * len(head) + "|"]
    for name, own in runs.items():
        cells = [f"`{name}`" if "(" in name else name]
        for rate in LEARNING_RATES:
            chosen = [i for i, used in enumerate(own["learning_rate"]) if used == rate]
            accuracy = [own["accuracy"][i] for i in chosen]
            cells.append(f"{mean(accuracy):.0%} ({min(accuracy):.0%} to {max(accuracy):.0%})")
            cells.append(f"{mean(own['diverged'][i] for i in chosen):.0%}")
            cells.append(f"{mean(own['clipped_share'][i] for i in chosen):.0%}")
        lines.append(row(cells))
    return lines


def every_cost(cost: dict[str, Any]) -> list[str]:
    lines = [row(["variant", *BACKENDS]), "|---" * (1 + len(BACKENDS)) + "|"]
    for name in cost[BACKENDS[0]]["measured"]:
        cells = [name]
        for backend in BACKENDS:
            own = cost[backend]["measured"][name]
            spread = f"{own['lower_quartile']:.2f} to {own['upper_quartile']:.2f}"
            cells.append(f"{own['milliseconds']:.1f} ms, {own['ratio']:.2f} ({spread})")
        lines.append(row(cells))
    return lines


if __name__ == "__main__":
    main()
