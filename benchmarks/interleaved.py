"""Time variants in turn, so that a slow moment of the machine slows all of them."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

ROTATION = 3
"""Sets of data that the variants take in turn: none finds its own in the cache."""

_FEWEST = 5


class Variant(NamedTuple):
    """A function to time, with its preparation.

    Attributes:
        prepare: returns the argument of `run` for the number of a set of data, from 0 to
            `ROTATION - 1`; not timed.
        run: does the work, waits for it and reads a number of the result.
    """

    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]


def time_in_turn(
    variants: dict[str, Variant], seconds: float, most: int = 200
) -> dict[str, np.ndarray]:
    """Return the seconds of each variant in each repetition; each runs once in a repetition.

    Args:
        variants: by name.
        seconds: to stop after, once there are enough repetitions.
        most: number of repetitions to stop after in any case.
    """
    generator = np.random.default_rng(0)
    for variant in variants.values():
        for index in range(2):
            variant.run(variant.prepare(index))
    times: dict[str, list[float]] = {name: [] for name in variants}
    end = time.perf_counter() + seconds
    for repetition in range(most):
        if repetition >= _FEWEST and time.perf_counter() > end:
            break
        for name in generator.permutation(list(variants)):
            prepared = variants[name].prepare(int(generator.integers(ROTATION)))
            start = time.perf_counter()
            result = variants[name].run(prepared)
            times[name].append(time.perf_counter() - start)
            # Freeing the memory is not a part of the variant.
            del result, prepared
    return {name: np.array(own) for name, own in times.items()}


def summary(own: np.ndarray, references: dict[str, np.ndarray]) -> dict[str, Any]:
    """Median and quartiles of milliseconds, and of the ratios to each reference."""
    return {
        "milliseconds": quartiles(1e3 * own),
        "ratios": {name: quartiles(own / reference) for name, reference in references.items()},
    }


def quartiles(values: np.ndarray) -> dict[str, float]:
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": float(median), "lower": float(lower), "upper": float(upper)}
