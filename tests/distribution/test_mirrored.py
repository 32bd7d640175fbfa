"""Law 4 with 2, 3, 4 and 8 replicas in one process: MirroredStrategy, both kinds of loop."""

import keras
import numpy as np
import pytest

from tests.distribution import cases, children
from tests.distribution.batches import BATCH, STEPS, batch, difference
from tests.distribution.numpy_loop import train
from tests.support.models import data

pytestmark = [
    # On the oldest Keras law 4 and the other tests of MirroredStrategy stand for these.
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
    ),
]


def found_by_program(part):
    """Return the results of a process with eight logical devices."""
    return children.results([children.start("tests.distribution.mirrored_program", part)])[0]


@pytest.fixture(scope="module")
def own_loops():
    return found_by_program("own_loops")


@pytest.fixture(scope="module")
def fits():
    return found_by_program("fits")


# In `make test` law 4, accumulation and faults have `fit` on two replicas.
longer = pytest.mark.endurance


@pytest.mark.parametrize("name", cases.REPLICAS)
def test_unequal_shares_equal_one_device(own_loops, name):
    replicas, one_device = (own_loops[kind][name] for kind in ("replicas", "one_device"))
    assert replicas["iterations"] == one_device["iterations"] == STEPS
    assert difference(replicas["weights"], one_device["weights"]) < 1e-6


def test_four_replicas_equal_numpy(own_loops):
    batches = [(*batch(step), np.full((BATCH, 1), 1 / BATCH)) for step in range(STEPS)]
    weights, norms = train(own_loops["start"], batches, cases.LEARNING_RATE, cases.MAX_NORM)
    assert np.mean(np.array(norms) > cases.MAX_NORM) > 0.5
    assert difference(own_loops["replicas"]["sgd"]["weights"], weights) < 1e-6


@pytest.mark.parametrize("name", cases.REPLICAS)
def test_each_replica_holds_the_same_state_to_the_bit(own_loops, name):
    first, *others = own_loops["replicas"][name]["copies"]
    assert len(others) == cases.REPLICAS[name] - 1
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", cases.REPLICAS)
def test_gradients_are_reduced_once_as_without_clipping(own_loops, name):
    bare = own_loops["reductions_without_clipping"]
    assert bare == [4]
    # A new size of a share would need a new trace; here sizes are constant.
    assert own_loops["replicas"][name]["reductions"] == bare


@longer
@pytest.mark.parametrize("kind", ["even", "averages"])
def test_fit_equals_one_device(fits, kind):
    replicas, one_device = fits[kind]["replicas"], fits[kind]["one_device"]
    assert replicas["iterations"] == one_device["iterations"] >= STEPS
    assert difference(replicas["weights"], one_device["weights"]) < 1e-6


def as_keras_weighs(batches_of_shares, samples):
    """Batches of `fit` on replicas, with the weight that Keras gives to each sample.

    It takes the mean over each share, even if another is empty, and divides it by their number.
    """
    inputs, targets = data(samples)
    start = 0
    for shares in batches_of_shares:
        rows = slice(start, start + sum(shares))
        weights = [np.full((n, 1), 1 / (n * len(shares))) for n in shares if n]
        yield inputs[rows], targets[rows], np.concatenate(weights)
        start = rows.stop


@longer
@pytest.mark.parametrize("kind, max_norm", [("bare", np.inf), ("clipped", cases.MAX_NORM)])
def test_uneven_shares_count_as_keras_weighs_them(fits, kind, max_norm):
    uneven = fits["uneven"]
    assert uneven["shares"][-1] == [1, 1, 0]
    epoch = list(as_keras_weighs(uneven["shares"], cases.UNEVEN_SAMPLES))
    batches = [epoch[step % len(epoch)] for step in range(uneven[kind]["iterations"])]
    weights, _ = train(fits["start"], batches, cases.LEARNING_RATE, max_norm)
    assert difference(uneven[kind]["weights"], weights) < 1e-6


@longer
def test_keras_itself_weighs_uneven_shares_otherwise_than_one_device(fits):
    """Law 4 cannot hold there, with or without clipping."""
    uneven = fits["uneven"]
    assert difference(uneven["bare"]["weights"], uneven["bare_one_device"]["weights"]) > 1e-3


@longer
@pytest.mark.parametrize("kind", ["first batch uneven", "averages overwrite"])
def test_what_keras_refuses_on_replicas_it_refuses_without_the_wrapper(fits, kind):
    refused = fits["refused"][kind]
    assert (refused["clipped"] is None) == (refused["bare"] is None)
