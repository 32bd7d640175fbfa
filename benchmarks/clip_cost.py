"""The time of the clip by the global norm alone, against Keras's clip, a peer's and the limit.

    KERAS_BACKEND=tensorflow python -m benchmarks.clip_cost          # under ten minutes
    KERAS_BACKEND=tensorflow python -m benchmarks.clip_cost --quick  # under one

Every variant clips gradients of the same sizes, in a `tf.function`, jitted by JAX, or called by
torch. Each repetition runs each variant once, in changing order, on one of three sets of gradients.
The result is the median over repetitions of the ratio of two variants in the same repetition.
Writes to `benchmarks/results/clip_cost_<backend>.json`, and draws
`benchmarks/results/clip_cost.png` of all measured backends.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
from threadpoolctl import threadpool_limits

from benchmarks import memory_limit
from benchmarks.clip_figure import draw_clip_cost
from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.gradient_sets import GradientSet, draw, gradient_sets
from benchmarks.interleaved import ROTATION, Variant, summary, time_in_turn

RESULTS = Path(__file__).parent / "results"
CLIPS_OF_BACKEND = {"tensorflow": "graph_clips", "jax": "compiled_clips", "torch": "eager_clips"}
LIMITS = {"nothing clipped": 1e9, "all clipped": 1e-3}
SECONDS = {"full": 70.0, "quick": 4.0, "smoke": 0.0}
LIMIT, OURS, KERAS, PEER, UNSAFE = "limit", "keras_clip", "Keras", "peer", "without safety"
CALL, SAFE_NORM, UNSAFE_NORM = "call alone", "norm", "norm without safety"


def make_variants(backend: Any, own: GradientSet) -> dict[str, Variant]:
    """One for each way to clip or not to, by name."""
    drawn = [draw(own, seed, backend.SPARSE) for seed in range(ROTATION)]
    clips = backend.Clips([gradients for _, gradients in drawn])
    limits = memory_limit.limits([flat for flat, _ in drawn])
    made = {CALL: clips.variant(list)}
    for words, limit in LIMITS.items():
        limit *= own.scale
        made[f"{LIMIT}: {words}"] = limits[words]
        made[f"{OURS}: {words}"] = clips.variant(clips.by_keras_clip, limit)
        made[f"{KERAS}: {words}"] = clips.variant(backend.by_keras(limit))
        made[f"{PEER}: {words}"] = clips.variant(clips.by_peer, limit)
        made[f"{UNSAFE}: {words}"] = clips.variant(backend.without_safety, limit)
    if len(own.shapes) == 1 or own.rows is not None:
        made[SAFE_NORM] = clips.variant(backend.safe_norm)
        made[UNSAFE_NORM] = clips.variant(backend.unsafe_norm)
    return made


def references(name: str) -> list[str]:
    """Return the variants that others are compared with."""
    if name == SAFE_NORM:
        return [UNSAFE_NORM]
    kind, _, words = name.partition(": ")
    if kind == OURS:
        return [f"{other}: {words}" for other in (LIMIT, KERAS, PEER, UNSAFE)]
    return [f"{LIMIT}: {words}"] if words and kind != LIMIT else []


def measure(backend: Any, own: GradientSet, seconds: float) -> dict[str, Any]:
    times = time_in_turn(make_variants(backend, own), seconds)
    repetitions = len(times[CALL])
    measured = {
        name: summary(mine, {other: times[other] for other in references(name)})
        for name, mine in times.items()
    }
    return {"repetitions": repetitions, "measured": measured}


def run(size: str, seconds: float, only: list[str] | None = None) -> dict[str, Any]:
    """Measure every set of gradients of a size, or only some."""
    backend = import_module(f"benchmarks.{CLIPS_OF_BACKEND[keras.config.backend()]}")
    sets = {}
    with threadpool_limits(memory_limit.THREADS, user_api="blas"):
        for name, own in gradient_sets(size).items():
            if only and name not in only:
                continue
            found = measure(backend, own, seconds)
            sets[name] = {**describe(own), **found}
            print(f"\n{name}\n{report(found)}", flush=True)
    return {
        "backend": keras.config.backend(),
        "versions": versions(),
        "size": size,
        "peer": backend.PEER,
        "sets": sets,
    }


def describe(own: GradientSet) -> dict[str, Any]:
    flat, _ = draw(own._replace(rows=None), 0, sparse=False)
    return {"variables": len(own.shapes), "parameters": len(flat)}


def report(found: dict[str, Any]) -> str:
    lines = []
    for name, own in found["measured"].items():
        ratios = ", ".join(
            f"{each['median']:.2f} ({each['lower']:.2f} to {each['upper']:.2f}) of {other}"
            for other, each in own["ratios"].items()
        )
        lines.append(f"  {name:32} {own['milliseconds']['median']:9.3f} ms  {ratios}")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
    sizes.add_argument("--smoke", dest="size", action="store_const", const="smoke")
    parser.add_argument("--only", nargs="*", help="names of sets of gradients; all by default")
    parser.add_argument("--seconds", type=float, help="for each set of gradients")
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    arguments = parser.parse_args(words)
    seconds = SECONDS[arguments.size] if arguments.seconds is None else arguments.seconds
    result = run(arguments.size, seconds, arguments.only)
    is_whole = arguments.size == "full" and not arguments.only
    folder = arguments.folder or (RESULTS if is_whole else None)
    if folder:
        path = folder / f"clip_cost_{result['backend']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        draw_clip_cost(folder)


if __name__ == "__main__":
    main()
