"""Law 4 with two processes: MultiWorkerMirroredStrategy over loopback, in a loop of one's own."""

import signal

import keras
import numpy as np
import pytest

from tests.distribution import cases, children
from tests.distribution.batches import difference

pytestmark = [
    # On the oldest Keras law 4 and the other tests of MirroredStrategy stand for these.
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
    ),
]

PROGRAM = "tests.distribution.worker_program"


@pytest.fixture(scope="module")
def workers():
    """What each of two workers found, of everything that runs to its end."""
    return children.results(children.start_workers(2, PROGRAM))


@pytest.fixture(scope="module")
def one_device():
    from tests.distribution.own_loop import one_device_run

    return {name: one_device_run(make) for name, make in cases.OWN_LOOPS.items()}


@pytest.mark.parametrize("name", cases.OWN_LOOPS)
def test_two_workers_equal_one_device(workers, one_device, name):
    for worker in workers:
        assert difference(worker["cases"][name]["weights"], one_device[name]["weights"]) < 1e-6


@pytest.mark.parametrize("name", cases.OWN_LOOPS)
def test_workers_hold_the_same_to_the_bit(workers, name):
    first, second = (worker["cases"][name] for worker in workers)
    assert first == second


@pytest.mark.parametrize("name", ["sgd", "sgd_family"])
def test_these_runs_do_clip(one_device, name):
    norms, moves = (np.array(one_device[name][key]) for key in ("norms", "moves"))
    assert np.mean(moves < 0.99 * cases.LEARNING_RATE * norms) > 0.5


def test_one_all_reduce_a_step_as_without_clipping(workers):
    for worker in workers:
        bare = worker["bare"]["collectives"]
        assert sum(bare.values()) == 1
        for clipped in (*worker["cases"].values(), worker["skipping"]):
            assert clipped["collectives"] == bare


def test_what_only_the_second_worker_sees_is_skipped_by_both(workers):
    first, second = (worker["skipping"] for worker in workers)
    assert first == second
    assert first["skipped"] == 2
    assert first["unchanged"]
    assert first["iterations"] == 2
    assert np.isfinite(np.concatenate([np.ravel(w) for w in first["weights"]])).all()


def test_fit_runs_as_far_as_it_does_without_the_wrapper(workers):
    for worker in workers:
        assert (worker["fit"]["clipped"] is None) == (worker["fit"]["bare"] is None)


def test_a_killed_worker_changes_nothing(workers, tmp_path):
    """Both start again from the latest checkpoint, as collectives need all workers."""
    folder = str(tmp_path)
    codes = children.exit_codes_after_first_failure(
        children.start_workers(2, PROGRAM, folder, "dying")
    )
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    ends = children.results(children.start_workers(2, PROGRAM, folder))
    for worker, restarted in zip(workers, ends, strict=True):
        assert restarted.pop("resumed_at") == cases.STEPS_PER_CHECKPOINT
        assert restarted == worker["cases"]["adam_family"]["halfway"]
