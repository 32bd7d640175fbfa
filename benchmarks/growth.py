"""How the cost of the clip grows with parameters, variables and replicas.

    KERAS_BACKEND=tensorflow python -m benchmarks.growth
    KERAS_BACKEND=tensorflow python -m benchmarks.growth --quick
    python -m benchmarks.growth --draw

Measures along three axes:

- the number of parameters, in ten variables: the clip alone, as in `clip_cost`;
- the number of variables, with a million parameters: the same;
- the number of replicas, on TensorFlow: a whole update of a million parameters in ten variables by
  SGD under MirroredStrategy, on logical devices of one CPU.

Writes to `benchmarks/results/growth_<backend>.json`, and draws `benchmarks/results/growth.png` of
all measured backends.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
from threadpoolctl import threadpool_limits

from benchmarks import clip_cost, memory_limit
from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.gradient_sets import GradientSet, draw
from benchmarks.growth_figure import draw_growth
from benchmarks.interleaved import ROTATION, Variant, summary, time_in_turn

RESULTS = Path(__file__).parent / "results"
GRID = {
    "full": {
        "parameters": [10**4, 10**5, 10**6, 10**7, 10**8],
        "variables": [1, 10, 100, 300, 1000, 3000],
        "replicas": [1, 2, 4, 8],
    },
    "quick": {
        "parameters": [10**4, 10**5, 10**6, 10**7],
        "variables": [1, 10, 100],
        "replicas": [1, 2],
    },
    "smoke": {"parameters": [100, 1000], "variables": [1, 2], "replicas": [1, 2]},
}
SECONDS = {"full": 8.0, "quick": 1.0, "smoke": 0.0}
_VARIABLES = 10
_PARAMETERS = {"full": 10**6, "quick": 10**5, "smoke": 1000}


def equal_shapes(parameters: int, variables: int) -> list[tuple[int, ...]]:
    return [(parameters // variables,)] * variables


def clip_variants(backend: Any, shapes: list[tuple[int, ...]]) -> dict[str, Variant]:
    drawn = [draw(GradientSet(shapes), seed, sparse=False) for seed in range(ROTATION)]
    clips = backend.Clips([gradients for _, gradients in drawn])
    limits = memory_limit.limits([flat for flat, _ in drawn])
    made = {}
    for words, limit in clip_cost.LIMITS.items():
        made[f"{clip_cost.LIMIT}: {words}"] = limits[words]
        made[f"{clip_cost.OURS}: {words}"] = clips.variant(clips.by_keras_clip, limit)
        made[f"{clip_cost.KERAS}: {words}"] = clips.variant(backend.by_keras(limit))
        made[f"{clip_cost.PEER}: {words}"] = clips.variant(clips.by_peer, limit)
    return made


def measure(variants: dict[str, Variant], seconds: float) -> dict[str, Any]:
    return {name: summary(own, {}) for name, own in time_in_turn(variants, seconds, 50).items()}


def run(size: str) -> dict[str, Any]:
    """Measure along each axis; return pairs of a number and the result there."""
    seconds, grid = SECONDS[size], GRID[size]
    on_tensorflow = keras.config.backend() == "tensorflow"
    if on_tensorflow:
        replicas = import_module("benchmarks.replicas")
        replicas.split_processor(max(grid["replicas"]))
    backend = import_module(f"benchmarks.{clip_cost.CLIPS_OF_BACKEND[keras.config.backend()]}")
    found: dict[str, list[Any]] = {"parameters": [], "variables": []}
    with threadpool_limits(memory_limit.THREADS, user_api="blas"):
        for count in grid["parameters"]:
            variants = clip_variants(backend, equal_shapes(count, _VARIABLES))
            found["parameters"].append([count, measure(variants, seconds)])
        for count in grid["variables"]:
            variants = clip_variants(backend, equal_shapes(_PARAMETERS[size], count))
            found["variables"].append([count, measure(variants, seconds)])
    if on_tensorflow:
        shapes = equal_shapes(_PARAMETERS[size], _VARIABLES)
        found["replicas"] = [
            [count, measure(replicas.variants(count, shapes), seconds)]
            for count in grid["replicas"]
        ]
    return {
        "backend": keras.config.backend(),
        "versions": versions(),
        "size": size,
        "peer": backend.PEER,
        "growth": found,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
    sizes.add_argument("--smoke", dest="size", action="store_const", const="smoke")
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    arguments = parser.parse_args(words)
    is_whole = arguments.size == "full"
    folder = arguments.folder or (RESULTS if is_whole else None)
    if not arguments.draw:
        result = run(arguments.size)
        if folder:
            path = folder / f"growth_{result['backend']}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")
    if folder:
        draw_growth(folder)


if __name__ == "__main__":
    main()
