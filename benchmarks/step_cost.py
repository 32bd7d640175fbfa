"""What clipping by the global norm adds to a whole training step of a transformer.

    KERAS_BACKEND=jax python -m benchmarks.step_cost            # an accelerator
    KERAS_BACKEND=torch python -m benchmarks.step_cost --quick  # a processor, to see it work
    python -m benchmarks.step_cost --table

Adam, on JAX the step as one program with `stateless_apply`, on torch a loop that calls `apply`.
Each repetition runs every variant for a few steps, one after another, in an order that changes,
and waits for the device before and after each; what is reported is the median over
repetitions of the ratio to no clipping in the same one. "no clipping, again" is the same thing
measured twice. Writes to `benchmarks/results/step_cost_<backend>_<device>.json`.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import versions
from benchmarks.transformer import FULL, QUICK, Size, make_batches, make_model
from keras_clip import ClippedOptimizer

RESULTS = Path(__file__).parent / "results"
STEPS_OF_BACKEND = {"jax": "compiled_steps", "torch": "eager_steps"}
REFERENCE = "no clipping"
LIMITS = {"nothing clipped": 1e9, "all clipped": 1e-3}


def adam(**options: Any) -> Any:
    return keras.optimizers.Adam(1e-5, **options)


# Name: the optimizer at a threshold, whether the peer clips before, whether a change of the
# threshold makes another program of it.
CLIPS: dict[str, tuple[Callable[[float], Any], bool, bool]] = {
    "Keras, global_clipnorm": (lambda limit: adam(global_clipnorm=limit), False, True),
    "peer": (lambda limit: adam(), True, False),
    "keras_clip": (lambda limit: ClippedOptimizer(adam(), limit), False, False),
    'keras_clip, nonfinite="skip"': (
        lambda limit: ClippedOptimizer(adam(), limit, nonfinite="skip"),
        False,
        False,
    ),
}


def make_steps(backend: Any, size: Size, example: Any) -> dict[str, Callable[[Any], Any]]:
    """One function of a batch for each variant."""
    optimizers: dict[str, Any] = {REFERENCE: (adam, False)}
    variants = {REFERENCE: (REFERENCE, 0.0), f"{REFERENCE}, again": (REFERENCE, 0.0)}
    for clip, (make, by_peer, compiled_anew) in CLIPS.items():
        for words, limit in LIMITS.items():
            program = f"{clip} {limit}" if compiled_anew else clip
            optimizers[program] = (lambda make=make, limit=limit: make(limit), by_peer)
            shown = backend.PEER if by_peer else clip
            variants[f"{shown}: {words}"] = (program, limit)
    steps = backend.Steps(make_model(size), example, optimizers)
    return {name: steps.make(*variant) for name, variant in variants.items()}


def measure(size: Size, repetitions: int, steps: int) -> dict[str, dict[str, float]]:
    backend = import_module(f"benchmarks.{STEPS_OF_BACKEND[keras.config.backend()]}")
    batches = [backend.put(batch) for batch in make_batches(size, 16)]
    variants = make_steps(backend, size, batches[0])
    times: dict[str, list[float]] = {name: [] for name in variants}
    generator = np.random.default_rng(0)

    def seconds_per_step(step: Callable[[Any], Any]) -> float:
        chosen = [batches[i] for i in generator.integers(len(batches), size=steps)]
        backend.wait(chosen)
        start = time.perf_counter()
        losses = [step(batch) for batch in chosen]
        backend.wait(losses)
        seconds = time.perf_counter() - start
        assert all(math.isfinite(float(loss)) for loss in losses)
        return seconds / steps

    for step in variants.values():
        seconds_per_step(step)  # compiles, fills caches
    for _ in range(repetitions):
        for name in generator.permutation(list(variants)):
            times[name].append(seconds_per_step(variants[name]))
    return {name: summary(own, times[REFERENCE]) for name, own in times.items()}


def summary(own: list[float], reference: list[float]) -> dict[str, float]:
    milliseconds, ratios = 1e3 * np.array(own), np.array(own) / np.array(reference)
    return {
        "ratio": float(np.median(ratios)),
        "ratio_lower_quartile": float(np.quantile(ratios, 0.25)),
        "ratio_upper_quartile": float(np.quantile(ratios, 0.75)),
        "milliseconds": float(np.median(milliseconds)),
        "milliseconds_lower_quartile": float(np.quantile(milliseconds, 0.25)),
        "milliseconds_upper_quartile": float(np.quantile(milliseconds, 0.75)),
    }


def table(measured: dict[str, dict[str, float]]) -> str:
    lines = ["| variant | ratio to no clipping | milliseconds a step |", "|---|---|---|"]
    for name, own in measured.items():
        ratio, milliseconds = (
            f"{own[key]:{form}} ({own[f'{key}_lower_quartile']:{form}} to "
            f"{own[f'{key}_upper_quartile']:{form}})"
            for key, form in (("ratio", ".3f"), ("milliseconds", ".2f"))
        )
        lines.append(f"| {name} | {ratio} | {milliseconds} |")
    return "\n".join(lines)


def print_tables() -> None:
    for path in sorted(RESULTS.glob("step_cost_*.json")):
        result = json.loads(path.read_text())
        print(f"\n{result['backend']}, {result['device']}, {result['dtype']}\n")
        print(table(result["measured"]))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    size = QUICK if arguments.quick else FULL
    size = size._replace(sequences=arguments.sequences or size.sequences)
    usual_dtype = "float32" if arguments.quick else "mixed_bfloat16"
    keras.config.set_dtype_policy(arguments.dtype or usual_dtype)
    backend = import_module(f"benchmarks.{STEPS_OF_BACKEND[keras.config.backend()]}")
    return {
        "backend": keras.config.backend(),
        "device": backend.device_name(),
        "versions": versions(),
        "dtype": keras.config.dtype_policy().name,
        "size": size._asdict(),
        "parameters": make_model(size).count_params(),
        "repetitions": arguments.repetitions,
        "steps": arguments.steps,
        "measured": measure(size, arguments.repetitions, arguments.steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, in float32")
    parser.add_argument("--dtype", help="dtype policy of the model")
    parser.add_argument("--sequences", type=int, help="of a batch")
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--steps", type=int, default=5, help="steps of one repetition")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the result goes")
    parser.add_argument("--table", action="store_true", help="print what was measured before")
    arguments = parser.parse_args()
    if arguments.table:
        print_tables()
        return
    result = run(arguments)
    print(f"{result['parameters']:,} parameters, {result['dtype']}, {result['device']}\n")
    print(table(result["measured"]))
    names = ["step_cost", result["backend"], result["device"]]
    file = re.sub(r"[^a-z0-9]+", "_", "_".join(names).lower())
    (arguments.folder / f"{file}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
