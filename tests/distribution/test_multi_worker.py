"""Law 4 with two processes: MultiWorkerMirroredStrategy over loopback, in a custom loop."""

import signal

import keras
import numpy as np
import pytest

from tests.distribution import cases, children
from tests.distribution.batches import difference

pytestmark = [
    # Two processes a case: in `make test` the tests of MirroredStrategy stand for these.
    pytest.mark.endurance,
    pytest.mark.skipif(
        keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
    ),
]

PROGRAM = "tests.distribution.worker_program"


def two_workers(*words):
    return children.results(children.start_workers(2, PROGRAM, *words))


@pytest.fixture(scope="module")
def workers():
    """Return the results of two workers that most tests read."""
    return two_workers("adam_family", "bare", "skipping")


@pytest.fixture(scope="module", params=cases.OWN_LOOPS)
def compared(request, workers):
    """Return a case, with the results of two workers and of one device."""
    from tests.distribution.own_loop import one_device_run

    name = request.param
    found = workers if name in workers[0] else two_workers(name)
    return name, [worker[name] for worker in found], one_device_run(cases.OWN_LOOPS[name])


def test_two_workers_equal_one_device(compared):
    _, found, one_device = compared
    for worker in found:
        assert difference(worker["weights"], one_device["weights"]) < 1e-6


def test_workers_hold_the_same_to_the_bit(compared):
    first, second = compared[1]
    assert first == second


def test_these_runs_do_clip(compared):
    name, _, one_device = compared
    # Adam's moves do not show the norm.
    if name.startswith("sgd"):
        norms, moves = (np.array(one_device[key]) for key in ("norms", "moves"))
        assert np.mean(moves < 0.99 * cases.LEARNING_RATE * norms) > 0.5
    else:
        assert max(one_device["norms"]) > cases.MAX_NORM


def test_one_all_reduce_a_step_as_without_clipping(compared, workers):
    bare = workers[0]["bare"]["collectives"]
    assert sum(bare.values()) == 1
    for clipped in (*compared[1], *(worker["skipping"] for worker in workers)):
        assert clipped["collectives"] == bare


def test_what_only_the_second_worker_sees_is_skipped_by_both(workers):
    first, second = (worker["skipping"] for worker in workers)
    assert first == second
    assert first["skipped"] == 2
    assert first["unchanged"]
    assert first["processes"] == 2
    assert first["iterations"] == 2
    assert np.isfinite(np.concatenate([np.ravel(w) for w in first["weights"]])).all()


def test_fit_runs_as_far_as_it_does_without_the_wrapper():
    for worker in two_workers("fit"):
        assert (worker["fit"]["clipped"] is None) == (worker["fit"]["bare"] is None)


def test_a_killed_worker_changes_nothing(workers, tmp_path):
    """Both start again from the latest checkpoint, as collectives need all workers."""
    words = ("checkpointed", str(tmp_path))
    codes = children.exit_codes_after_first_failure(
        children.start_workers(2, PROGRAM, *words, "dying")
    )
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    for worker, restarted in zip(workers, two_workers(*words), strict=True):
        assert restarted.pop("resumed_at") == cases.STEPS_PER_CHECKPOINT
        assert restarted == worker["adam_family"]["halfway"]
