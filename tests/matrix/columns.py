"""The training of each column, and its checks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.matrix.place import Place
from tests.matrix.problem import (
    LEARNING_RATE,
    MAX_NORM,
    SPOILT_STEP,
    Batch,
    Course,
    batches,
    flat,
    joined,
    losses,
    reference,
    start,
)

# Odd, so that nothing periodic ends there.
STOP = 3


class Column(NamedTuple):
    """`run` trains, with the wrapper or without; `check` raises if the result is wrong."""

    run: Any
    check: Any
    # For results that need no wrapper.
    check_bare: Any = None


def run_by(way: str) -> Any:
    return lambda place: place.run(way, batches())


def check_training(place: Place, course: Course) -> None:
    compare(place, course, batches())
    check_first_step(place, course)
    assert min(course.norms) > MAX_NORM
    fallen = losses(course, batches())
    assert fallen[-1] < fallen[0], fallen
    if place.scales_dynamically:
        assert course.scale == 2.0**15
    if place.precision.float8:
        check_overwritten(place, course)


def compare(
    place: Place, course: Course, given: list[Batch], accumulate: int | None = None
) -> None:
    """Compare weights, norms and momentum with one device on `given`, joined by `accumulate`."""
    expected = reference(joined(given, accumulate or 1), place.strategy.momentum)
    rtol = place.precision.rtol
    assert course.updates == expected.updates, (course.updates, expected.updates)
    np.testing.assert_allclose(course.norms, expected.norms, rtol=rtol)
    if place.precision.is_own_reference:
        expected, rtol = builtin(place).run("fit", given, accumulate=accumulate), 1e-6
        keep_updates(expected, accumulate)
        assert_near(course.overwritten, expected.overwritten, rtol, "scales")
    assert_near(course.weights, expected.weights, rtol, "weights")
    if place.strategy.momentum:
        assert_near([course.velocity], [expected.velocity], 10 * rtol, "velocity")


def keep_updates(course: Course, accumulate: int | None) -> None:
    if accumulate:
        for lists in (course.norms, course.weights, course.overwritten):
            del lists[::accumulate]


def builtin(place: Place) -> Place:
    return Place(place.strategy, place.precision, clipped=False, builtin=True)


def assert_near(found: Sequence[Any], right: Sequence[Any], rtol: float, what: str) -> None:
    for one, other in zip(found, right, strict=True):
        distance = np.linalg.norm(one - other) / np.linalg.norm(other)
        assert distance <= rtol, f"{what} are {distance:.2g} off, accepted are {rtol}"


def check_first_step(place: Place, course: Course) -> None:
    """The step is exactly as long as the clipped gradient, however the gradient was rounded."""
    expected = LEARNING_RATE * min(course.norms[0], MAX_NORM)
    np.testing.assert_allclose(first_step(course), expected, rtol=place.precision.step_rtol)


def first_step(course: Course) -> float:
    return float(np.linalg.norm(course.weights[0] - flat(start())))


def check_overwritten(place: Place, course: Course) -> None:
    """Scales of float8, which Keras sets to their gradients, count in no norm."""
    bare = Place(place.strategy, place.precision, clipped=False).run("fit", batches()[:1])
    np.testing.assert_array_equal(course.overwritten[0], bare.overwritten[0])
    norm = first_step(bare) / LEARNING_RATE
    np.testing.assert_allclose(course.norms[0], norm, rtol=place.precision.step_rtol)
    assert np.linalg.norm(bare.overwritten[0]) > norm
    assert not np.array_equal(course.overwritten[0], course.overwritten[-1])


def accumulate(place: Place) -> Course:
    return place.run(place.usual_way, batches(), accumulate=2)


def check_accumulation(place: Place, course: Course) -> None:
    assert course.norms[0] == 0.0
    keep_updates(course, 2)
    compare(place, course, batches(), accumulate=2)


def skip(place: Place) -> Course:
    options = {"nonfinite": "skip"} if place.clipped else {}
    return place.run(place.usual_way, batches(SPOILT_STEP), **options)


def check_skip(place: Place, course: Course) -> None:
    """The batch leaves no trace; a LossScaleOptimizer outside skips it itself."""
    weights = course.weights.pop(SPOILT_STEP)
    np.testing.assert_array_equal(weights, course.weights[SPOILT_STEP - 1])
    norm = course.norms.pop(SPOILT_STEP)
    del course.overwritten[SPOILT_STEP]
    if place.scales_dynamically:
        assert (course.skipped, course.scale) == (0, 2.0**14)
        assert norm == course.norms[SPOILT_STEP - 1]
    else:
        assert course.skipped == 1
        assert np.isnan(norm)
    good = batches()
    del good[SPOILT_STEP]
    compare(place, course, good)


def resume(place: Place) -> Any:
    options = adaptive() if place.clipped and place.strategy.keeps_state else {}
    whole = place.make(**options)
    place.observed(whole, place.usual_way, batches())
    resumed = place.resumed(place.usual_way, batches(), STOP, **options)
    return place.state(whole), place.state(resumed)


def adaptive() -> dict[str, Any]:
    """A clipper with much state."""
    return {"max_norm": None, "clipper": ["auto_clip", "clip_by_global_norm"]}


def check_resume(place: Place, states: Any) -> None:
    whole, resumed = states
    assert sorted(resumed) == sorted(whole)
    for path, value in whole.items():
        np.testing.assert_array_equal(resumed[path], value, err_msg=path, strict=True)


COLUMNS = {
    "fit": Column(run_by("fit"), check_training),
    "own loop": Column(run_by("loop"), check_training),
    "accumulation": Column(accumulate, check_accumulation),
    "skip": Column(skip, check_skip),
    "save and resume": Column(resume, check_resume, check_resume),
}
