"""The time that each clipper adds to a training step, against `ClipByGlobalNorm`, in one run.

    KERAS_BACKEND=tensorflow python -m benchmarks.clipper_cost

Trains a network of about a million parameters with Adam, batch 128. Each repetition trains
every variant for a few steps of `fit`, one after another, in changing order. The result is the
median over repetitions of the ratio to `ClipByGlobalNorm` in the same repetition. Adds its figures
to `benchmarks/results/clipper_cost.json`, by backend.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import versions
from keras_clip import ClipMonitor, ClippedOptimizer, ClipperMap, ObserveOnly, clippers

RESULT = Path(__file__).parent / "results" / "clipper_cost.json"
BATCH_SIZE = 128
REFERENCE = "ClipByGlobalNorm"
MONITORED = "ClipByGlobalNorm, ClipMonitor"

# Thresholds are low enough that each clips at every step.
VARIANTS: dict[str, Callable[[], Any]] = {
    "no wrapper": lambda: None,
    REFERENCE: lambda: clippers.ClipByGlobalNorm(1e-3),
    "ClipByGlobalNorm, nothing to clip": lambda: clippers.ClipByGlobalNorm(1e9),
    "ClipByGlobalNorm, history_size=0": lambda: clippers.ClipByGlobalNorm(1e-3),
    'ClipByGlobalNorm, nonfinite="skip"': lambda: clippers.ClipByGlobalNorm(1e-3),
    MONITORED: lambda: clippers.ClipByGlobalNorm(1e-3),
    "ClipByGlobalNorm(norm_type=inf)": lambda: clippers.ClipByGlobalNorm(1e-5, float("inf")),
    "ClipByNorm": lambda: clippers.ClipByNorm(1e-3),
    "ClipByValue": lambda: clippers.ClipByValue(1e-6),
    "ClipByBlockRMS": lambda: clippers.ClipByBlockRMS(1e-6),
    "AdaptiveGradientClipping": lambda: clippers.AdaptiveGradientClipping(1e-5),
    "AutoClip": lambda: clippers.AutoClip(10.0),
    "ZClip": clippers.ZClip,
    "AdaGC": clippers.AdaGC,
    "ClipperMap of two groups": lambda: ClipperMap("clip_by_global_norm", {".*/bias": None}),
    "ObserveOnly(ClipByGlobalNorm)": lambda: ObserveOnly("clip_by_global_norm"),
}

# Other arguments of a variant's optimizer.
OPTIONS: dict[str, dict[str, Any]] = {
    "ClipByGlobalNorm, history_size=0": {"history_size": 0},
    'ClipByGlobalNorm, nonfinite="skip"': {"nonfinite": "skip"},
}


def make_model(clipper: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((256,)),
            *(keras.layers.Dense(560, activation="relu") for _ in range(3)),
            keras.layers.Dense(384, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    inner = keras.optimizers.Adam(1e-4)
    optimizer = inner if clipper is None else ClippedOptimizer(inner, clipper=clipper, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def seconds_per_step(name: str, model: Any, inputs: np.ndarray, targets: np.ndarray) -> float:
    """Train for an epoch; at its end the monitor reads the record from the device."""
    callbacks = [ClipMonitor()] if name == MONITORED else []
    start = time.perf_counter()
    model.fit(inputs, targets, batch_size=BATCH_SIZE, shuffle=False, verbose=0, callbacks=callbacks)
    return (time.perf_counter() - start) / (len(inputs) // BATCH_SIZE)


def measure(
    repetitions: int, steps: int, only: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(steps * BATCH_SIZE, 256)).astype("float32")
    targets = generator.integers(0, 10, size=len(inputs))
    models = {
        name: make_model(make(), **OPTIONS.get(name, {}))
        for name, make in VARIANTS.items()
        if only is None or name in (REFERENCE, *only)
    }
    print(f"{next(iter(models.values())).count_params():,} parameters")
    for name, model in models.items():
        seconds_per_step(name, model, inputs, targets)  # compiles
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repetitions):
        for name in generator.permutation(list(models)):
            times[name].append(seconds_per_step(name, models[name], inputs, targets))
    reference = np.array(times[REFERENCE])
    return {
        name: {
            "milliseconds": 1e3 * float(np.median(own)),
            "ratio": float(np.median(np.array(own) / reference)),
            "lower_quartile": float(np.quantile(np.array(own) / reference, 0.25)),
            "upper_quartile": float(np.quantile(np.array(own) / reference, 0.75)),
        }
        for name, own in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="of the variants")
    parser.add_argument("--steps", type=int, default=12, help="steps of one repetition")
    arguments = parser.parse_args()
    measured = measure(arguments.repetitions, arguments.steps, arguments.only)
    for name, own in measured.items():
        spread = f"{own['lower_quartile']:.3f} to {own['upper_quartile']:.3f}"
        print(f"{name:35} {own['milliseconds']:7.2f} ms  {own['ratio']:.3f}  ({spread})")
    if arguments.only:
        return
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[keras.config.backend()] = {"versions": versions(), "measured": measured}
    RESULT.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
