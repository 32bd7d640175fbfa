"""The time that clipping by the global norm adds to a whole training step.

    KERAS_BACKEND=jax python -m benchmarks.step_cost            # a transformer, an accelerator
    KERAS_BACKEND=tensorflow python -m benchmarks.step_cost --model dense21M --optimizer sgd
    KERAS_BACKEND=tensorflow python -m benchmarks.step_cost --model dense21M --fit
    KERAS_BACKEND=torch python -m benchmarks.step_cost --quick  # small, to see it work
    python -m benchmarks.step_cost --table

On JAX the step is one program with `stateless_apply`, on TensorFlow one `tf.function`, on torch
a loop that calls `apply`. With `--fit` it is Keras's own.

Each repetition runs every variant for a few steps, one after another, in changing order, and waits
for the device before and after each. The result is the median over repetitions of the ratio to no
clipping in the same repetition. "no clipping, again" measures the same program twice. Writes to
`benchmarks/results/step_cost_<backend>_<device>.json`; `--model` adds the names of the model and
the optimizer to the file name.
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

from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.step_models import MODELS, QUICK_MODELS, StepModel, text_model
from benchmarks.transformer import FULL, QUICK, Size
from keras_clip import ClippedOptimizer, Outliers

RESULTS = Path(__file__).parent / "results"
STEPS_OF_BACKEND = {"tensorflow": "graph_steps", "jax": "compiled_steps", "torch": "eager_steps"}
REFERENCE = "no clipping"
LIMITS = {"nothing clipped": 1e9, "all clipped": 1e-3}
LEARNING_RATE = 1e-5
OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
_FEWEST = 3

Clip = tuple[Callable[[float], Any], bool, bool]


def clips(optimizer: str) -> dict[str, Clip]:
    """Return by name how each variant clips.

    A value has the optimizer at a threshold, whether the peer clips before, and whether a new
    threshold needs a new program.
    """

    def plain(**options: Any) -> Any:
        return OPTIMIZERS[optimizer](LEARNING_RATE, **options)

    def wrapped(**options: Any) -> Clip:
        return lambda limit: ClippedOptimizer(plain(), limit, **options), False, False

    return {
        REFERENCE: (lambda limit: plain(), False, False),
        "Keras, global_clipnorm": (lambda limit: plain(global_clipnorm=limit), False, True),
        "peer": (lambda limit: plain(), True, False),
        "keras_clip": wrapped(),
        "keras_clip, history_size=0": wrapped(history_size=0),
        'keras_clip, nonfinite="skip"': wrapped(nonfinite="skip"),
        "keras_clip, Outliers": wrapped(skip_above=Outliers()),
        # Far above and far below every step of this learning rate.
        "keras_clip, max_update_ratio": (
            lambda limit: ClippedOptimizer(
                plain(), math.inf, max_update_ratio=1e-9 * limit if limit < 1 else limit
            ),
            False,
            True,
        ),
    }


def make_steps(
    backend: Any, model: StepModel, optimizer: str, example: Any
) -> dict[str, Callable[[list[Any]], Any]]:
    """Return for each variant a function of some batches."""
    programs: dict[str, Any] = {}
    variants = {REFERENCE: (REFERENCE, 0.0), f"{REFERENCE}, again": (REFERENCE, 0.0)}
    for clip, (make, by_peer, compiled_anew) in clips(optimizer).items():
        if by_peer and backend.PEER is None:
            continue
        for words, limit in LIMITS.items():
            program = f"{clip} {limit}" if compiled_anew else clip
            programs[program] = (lambda make=make, limit=limit: make(limit), by_peer)
            shown = backend.PEER if by_peer else clip
            if clip != REFERENCE:
                variants[f"{shown}: {words}"] = (program, limit)
    steps = backend.Steps(model.make(), example, programs)
    made = {name: steps.make(*variant) for name, variant in variants.items()}
    if backend.PEER is None:
        return made
    return {name: _one_by_one(step) for name, step in made.items()}


def _one_by_one(step: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    return lambda batches: [step(batch) for batch in batches]


def measure(
    backend: Any, model: StepModel, optimizer: str, repetitions: int, steps: int, seconds: float
) -> tuple[int, dict[str, dict[str, float]]]:
    """Return how often each variant was timed, and the summary of each."""
    batches = [backend.put(batch) for batch in model.batches(16)]
    variants = make_steps(backend, model, optimizer, batches[0])
    times: dict[str, list[float]] = {name: [] for name in variants}
    generator = np.random.default_rng(0)

    def seconds_per_step(step: Callable[[list[Any]], Any]) -> float:
        chosen = [batches[i] for i in generator.integers(len(batches), size=steps)]
        backend.wait(chosen)
        start = time.perf_counter()
        losses = step(chosen)
        backend.wait(losses)
        seconds = time.perf_counter() - start
        assert all(math.isfinite(float(loss)) for loss in losses)
        return seconds / steps

    for step in variants.values():
        seconds_per_step(step)  # compiles, fills caches
    end = time.perf_counter() + seconds
    for done in range(repetitions):
        if done >= _FEWEST and time.perf_counter() > end:
            break
        for name in generator.permutation(list(variants)):
            times[name].append(seconds_per_step(variants[name]))
    measured = {name: summary(own, times[REFERENCE]) for name, own in times.items()}
    return len(times[REFERENCE]), measured


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
        known = [result.get(key) for key in ("backend", "device", "dtype", "model", "optimizer")]
        print(f"\n{', '.join(word for word in known if word)}{' in fit' * result.get('fit', 0)}\n")
        print(table(result["measured"]))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    named = arguments.model is not None
    usual_dtype = "float32" if arguments.quick or named else "mixed_bfloat16"
    keras.config.set_dtype_policy(arguments.dtype or usual_dtype)
    size: Size | None = None
    if named:
        model = (QUICK_MODELS if arguments.quick else MODELS)[arguments.model]
    else:
        size = QUICK if arguments.quick else FULL
        size = size._replace(sequences=arguments.sequences or size.sequences)
        model = text_model(size)
    own = "fit_steps" if arguments.fit else STEPS_OF_BACKEND[keras.config.backend()]
    backend = import_module(f"benchmarks.{own}")
    repetitions, measured = measure(
        backend,
        model,
        arguments.optimizer,
        arguments.repetitions,
        arguments.steps,
        arguments.seconds,
    )
    return {
        "backend": keras.config.backend(),
        "device": backend.device_name(),
        "versions": versions(),
        "dtype": keras.config.dtype_policy().name,
        **({"model": arguments.model} if named else {"size": size._asdict()}),
        "optimizer": arguments.optimizer,
        "fit": arguments.fit,
        "parameters": model.make().count_params(),
        "repetitions": repetitions,
        "steps": arguments.steps,
        "measured": measured,
    }


def file_name(result: dict[str, Any]) -> str:
    words = ["step_cost", result["backend"], result["device"]]
    if "model" in result:
        words += [result["model"], result["optimizer"]]
    if result["fit"]:
        words.append("fit")
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()) + ".json"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(MODELS), help="by default a large transformer")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adam")
    parser.add_argument("--fit", action="store_true", help="steps of `fit`")
    parser.add_argument("--quick", action="store_true", help="a small model, in float32")
    parser.add_argument("--dtype", help="dtype policy of the model")
    parser.add_argument("--sequences", type=int, help="of a batch of the large transformer")
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--steps", type=int, default=5, help="steps of one repetition")
    parser.add_argument("--seconds", type=float, default=420.0, help="to end after, at the latest")
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    parser.add_argument("--table", action="store_true", help="print what was measured before")
    arguments = parser.parse_args(words)
    if arguments.table:
        print_tables()
        return
    result = run(arguments)
    print(f"{result['parameters']:,} parameters, {result['dtype']}, {result['device']}\n")
    print(table(result["measured"]))
    folder = arguments.folder or (None if arguments.quick else RESULTS)
    if folder:
        (folder / file_name(result)).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
