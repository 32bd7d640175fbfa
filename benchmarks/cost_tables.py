"""The tables of the cost of clipping, made of the files in `results/`."""

import json
from pathlib import Path
from typing import Any

from benchmarks.markdown import row

BACKENDS = ("tensorflow", "jax", "torch")
STATES = ("nothing clipped", "all clipped")
NOTHING = ["Not measured yet."]


def load(folder: Path, name: str) -> dict[str, Any]:
    """Return the results of a benchmark by backend, for all measured backends."""
    paths = {backend: folder / f"{name}_{backend}.json" for backend in BACKENDS}
    return {
        backend: json.loads(path.read_text()) for backend, path in paths.items() if path.exists()
    }


def table(head: list[str], body: list[list[str]]) -> list[str]:
    if not body:
        return NOTHING
    return [row(head), "|---" * len(head) + "|", *map(row, body)]


def spread(own: dict[str, float]) -> str:
    return f"{own['median']:.2f} ({own['lower']:.2f} to {own['upper']:.2f})"


def clip_alone(results: dict[str, Any]) -> list[str]:
    """keras_clip's time, and its ratios to the limit, to Keras's and to the peer's."""
    head = ["gradients", "", "keras_clip", "to the limit", "to Keras's clip", "to the peer's"]
    body = []
    for backend, result in results.items():
        for name, own in result["sets"].items():
            for state in STATES:
                ours = own["measured"][f"keras_clip: {state}"]
                ratios = [
                    spread(ours["ratios"][f"{k}: {state}"]) for k in ("limit", "Keras", "peer")
                ]
                time = f"{ours['milliseconds']['median']:.2f} ms"
                body.append([f"{backend}, {gradients(name, own)}", state, time, *ratios])
    return table(head, body)


OVERVIEW = {
    "kernel": "one of 33.5 million entries",
    "transformer": "a transformer of 24 million",
    "300 kernels": "300 of 316 x 316",
    "1,000 kernels": "1,000 of 32 x 32",
}


def overview(results: dict[str, Any]) -> list[str]:
    """Medians alone, to Keras's clip; a row for each set of gradients."""
    named = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
    head = ["gradients"]
    for backend in results:
        head += [f"{named[backend]}, idle", "clipping"]
    body = []
    for name, words in OVERVIEW.items():
        cells = [words]
        for result in results.values():
            measured = result["sets"][name]["measured"]
            for state in STATES:
                ratio = measured[f"keras_clip: {state}"]["ratios"][f"Keras: {state}"]
                cells.append(f"{ratio['median']:.2f}")
        body.append(cells)
    return table(head, body)


def gradients(name: str, own: dict[str, Any]) -> str:
    return f"{name}: {own['parameters']:,} in {own['variables']:,}"


def safety(results: dict[str, Any]) -> list[str]:
    """Ratios of keras_clip to the same clip without guards against overflow and repeated rows."""
    head = ["gradients", *STATES, "the norm alone"]
    body = []
    for backend, result in results.items():
        for name, own in result["sets"].items():
            measured = own["measured"]
            cells = [
                spread(measured[f"keras_clip: {s}"]["ratios"][f"without safety: {s}"])
                for s in STATES
            ]
            norm = measured.get("norm")
            cells.append(spread(norm["ratios"]["norm without safety"]) if norm else "")
            body.append([f"{backend}, {name}", *cells])
    return table(head, body)


def whole_steps(folder: Path) -> list[str]:
    """Ratios to a step without clipping, on a CPU; a row for each way to clip."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("step_cost_*_cpu_*.json"))]
    body = []
    for result in found:
        loop = "fit" if result["fit"] else "own loop"
        label = ", ".join([result["backend"], result["model"], result["optimizer"], loop])
        measured = result["measured"]
        bare = f"{measured['no clipping']['milliseconds']:.1f} ms"
        body.append([label, "no clipping", bare, _ratio(measured["no clipping, again"])])
        clips = dict.fromkeys(name.partition(": ")[0] for name in measured if ": " in name)
        for clip in clips:
            body.append([label, clip, *(_ratio(measured[f"{clip}: {state}"]) for state in STATES)])
    return table(["step", "variant", *STATES], body)


def _ratio(own: dict[str, float]) -> str:
    return spread({key: own[f"ratio{end}"] for key, end in ENDS.items()})


ENDS = {"median": "", "lower": "_lower_quartile", "upper": "_upper_quartile"}


def eager_updates(results: dict[str, Any]) -> list[str]:
    body = []
    for backend, result in results.items():
        for name, own in result["measured"].items():
            ratios = [spread(ratio) for ratio in own["ratios"].values()]
            time = f"{own['milliseconds']['median']:.2f} ms"
            body.append([backend, name, time, *ratios, *[""] * (2 - len(ratios))])
    return table(["backend", "variant", "time", "to no clipping", "to Keras's clip"], body)


def start(results: dict[str, Any]) -> list[str]:
    """Medians, and the ratio of medians to the first variant of each kind."""
    body = []
    for backend, result in results.items():
        for what, variants in result["measured"].items():
            first = next(iter(variants.values()))["median"]
            for variant, own in variants.items():
                unit = result["units"][what]
                number = f"{own['median']:{',.0f' if unit == 'MiB' else '.2g'}} {unit}"
                ratio = f"{own['median'] / first:.2f}" if len(variants) > 1 else ""
                body.append([backend, what, variant, number, ratio])
    return table(["backend", "what", "variant", "median", "to the first"], body)
