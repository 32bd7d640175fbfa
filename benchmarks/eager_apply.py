"""The time that clipping adds to an uncompiled `optimizer.apply` for many small variables.

    KERAS_BACKEND=tensorflow python -m benchmarks.eager_apply   # or torch

Updates 50 variables of 32 x 32 by SGD, as in a custom loop around a `GradientTape`.
Writes to `benchmarks/results/eager_apply_<backend>.json`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.interleaved import ROTATION, Variant, summary, time_in_turn
from keras_clip import ClippedOptimizer

RESULTS = Path(__file__).parent / "results"
LIMITS = {"nothing clipped": 1e9, "all clipped": 1e-3}
REFERENCE = "no clipping"
OURS, KERAS = "keras_clip", "Keras, global_clipnorm"
SHAPE = (32, 32)


def sgd(**options: Any) -> Any:
    return keras.optimizers.SGD(1e-5, **options)


def optimizers() -> dict[str, Any]:
    made = {REFERENCE: sgd(), f"{REFERENCE}, again": sgd()}
    for words, limit in LIMITS.items():
        made[f"{KERAS}: {words}"] = sgd(global_clipnorm=limit)
        made[f"{OURS}: {words}"] = ClippedOptimizer(sgd(), limit)
        made[f"{OURS}, history_size=0: {words}"] = ClippedOptimizer(sgd(), limit, history_size=0)
    return made


def make_variant(optimizer: Any, variables: list[Any], sets: list[list[Any]]) -> Variant:
    optimizer.build(variables)

    def run(gradients: list[Any]) -> float:
        optimizer.apply(gradients, variables)
        return float(keras.ops.convert_to_numpy(variables[-1])[0, 0])

    return Variant(sets.__getitem__, run)


def measure(count: int, seconds: float) -> dict[str, Any]:
    generator = np.random.default_rng(0)

    def draw() -> list[Any]:
        return [
            keras.ops.convert_to_tensor(generator.standard_normal(SHAPE, dtype="float32"))
            for _ in range(count)
        ]

    variables = [keras.Variable(value) for value in draw()]
    sets = [draw() for _ in range(ROTATION)]
    variants = {name: make_variant(own, variables, sets) for name, own in optimizers().items()}
    times = time_in_turn(variants, seconds, most=400)
    return {
        "repetitions": len(times[REFERENCE]),
        "measured": {
            name: summary(own, {other: times[other] for other in references(name)})
            for name, own in times.items()
        },
    }


def references(name: str) -> list[str]:
    kind, _, words = name.partition(": ")
    return [REFERENCE, *([f"{KERAS}: {words}"] if kind.startswith(OURS) else [])]


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repetitions")
    parser.add_argument("--variables", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    arguments = parser.parse_args(words)
    found = measure(arguments.variables, 5.0 if arguments.quick else arguments.seconds)
    result = {
        "backend": keras.config.backend(),
        "versions": versions(),
        "variables": arguments.variables,
        **found,
    }
    for name, own in found["measured"].items():
        ratios = ", ".join(f"{r['median']:.3f} of {other}" for other, r in own["ratios"].items())
        print(f"{name:42} {own['milliseconds']['median']:8.2f} ms  {ratios}")
    folder = arguments.folder or (RESULTS if not arguments.quick else None)
    if folder:
        path = folder / f"eager_apply_{result['backend']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
