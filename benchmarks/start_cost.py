"""The time that keras_clip takes before the first step, and the memory of a step.

    KERAS_BACKEND=tensorflow python -m benchmarks.start_cost
    KERAS_BACKEND=tensorflow python -m benchmarks.start_cost --quick

Each number comes from separate processes, with all variants in turn:

- the time to import keras_clip after Keras;
- the time to build the optimizer for 3,000 variables;
- the time of the first step of `fit` for 300 variables;
- the peak resident size of a process that trains one kernel of 8192 x 4096 for three steps.

Writes to `benchmarks/results/start_cost_<backend>.json`.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.environment import FOLDER_HELP, versions
from benchmarks.interleaved import quartiles

RESULTS = Path(__file__).parent / "results"
OURS, KERAS, REFERENCE = "keras_clip", "Keras, global_clipnorm", "no clipping"
IDLE = "keras_clip, nothing clipped"
# The others are compared with the first of each.
VARIANTS = {
    "import": (OURS,),
    "build": (REFERENCE, OURS),
    "first step": (KERAS, OURS),
    "memory": (REFERENCE, KERAS, OURS, IDLE),
}
UNITS = {"import": "s", "build": "s", "first step": "s", "memory": "MiB"}
RUNS = {"import": 5, "build": 3, "first step": 4, "memory": 2}
SIZES = {
    "full": {"build": 3000, "first step": 300, "memory": [8192, 4096]},
    "quick": {"build": 300, "first step": 30, "memory": [1024, 512]},
    "smoke": {"build": 4, "first step": 4, "memory": [32, 16]},
}


def in_process(what: str, variant: str, size: Any) -> float:
    """Measure in a separate process."""
    command = [sys.executable, "-m", "benchmarks.start_cost_process", what, variant]
    # A package is compiled once, when it is installed or first used, and not in every run.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [*command, json.dumps(size)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return float(done.stdout.splitlines()[-1])


def run(size: str, measured: list[str] | None = None) -> dict[str, Any]:
    own, generator = SIZES[size], np.random.default_rng(0)
    chosen = measured or list(VARIANTS)
    tasks = [
        (what, variant)
        for what in chosen
        for _ in range(RUNS[what] if size == "full" else 1)
        for variant in VARIANTS[what]
    ]
    found: dict[str, dict[str, list[float]]] = {what: {} for what in chosen}
    for position in generator.permutation(len(tasks)):
        what, variant = tasks[position]
        seen = in_process(what, variant, own.get(what))
        found[what].setdefault(variant, []).append(seen)
    result = {
        what: {variant: quartiles(np.array(found[what][variant])) for variant in VARIANTS[what]}
        for what in chosen
    }
    return {
        "backend": keras.config.backend(),
        "versions": versions(),
        "size": size,
        "sizes": own,
        "units": UNITS,
        "measured": result,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
    sizes.add_argument("--smoke", dest="size", action="store_const", const="smoke")
    parser.add_argument("--folder", type=Path, help=FOLDER_HELP)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="all by default")
    arguments = parser.parse_args(words)
    result = run(arguments.size, arguments.only)
    for what, variants in result["measured"].items():
        for variant, own in variants.items():
            print(f"{what:12} {variant:28} {own['median']:9.3f} {UNITS[what]}")
    folder = arguments.folder or (
        RESULTS if arguments.size == "full" and not arguments.only else None
    )
    if folder:
        path = folder / f"start_cost_{result['backend']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
