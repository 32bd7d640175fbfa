"""Strategies without copies of variables, and the asynchronous one."""

import keras
import pytest

from tests.distribution import cases, children
from tests.distribution.batches import BATCH, difference

pytestmark = [
    # On the oldest Keras law 4 and the other tests of MirroredStrategy stand for these.
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
    ),
]


def one_device_strategy():
    import tensorflow as tf

    return tf.distribute.OneDeviceStrategy("CPU:0"), [slice(None)]


def central_storage_strategy():
    import tensorflow as tf

    devices = ["CPU:0", "CPU:1"]
    strategy = tf.distribute.experimental.CentralStorageStrategy(devices, "CPU:0")
    return strategy, [slice(0, 5), slice(5, BATCH)]


@pytest.mark.parametrize(
    "make_strategy, make_optimizer",
    [
        (one_device_strategy, cases.skipping),
        (central_storage_strategy, cases.skipping),
        pytest.param(central_storage_strategy, cases.adam_family, marks=pytest.mark.endurance),
    ],
)
def test_equals_no_strategy(make_strategy, make_optimizer):
    from tests.distribution.own_loop import OwnLoop, one_device_run

    strategy, shares = make_strategy()
    run = OwnLoop(strategy, make_optimizer, shares)
    run.run(0, cases.RESTART_STEPS)
    expected = one_device_run(make_optimizer, cases.RESTART_STEPS)
    assert difference(run.result()["weights"], expected["weights"]) < 1e-6
    assert difference(run.result()["optimizer"], expected["optimizer"]) < 1e-5


@pytest.fixture(scope="module")
def parameter_server():
    return children.results([children.start("tests.distribution.parameter_server_program")])[0]


def test_a_clipper_without_state_works_on_a_parameter_server(parameter_server):
    from tests.distribution.own_loop import one_device_run

    expected = one_device_run(cases.adam, cases.RESTART_STEPS)["weights"]
    assert difference(parameter_server["without state"], expected) < 1e-6


@pytest.mark.parametrize("kind", ["with state", "skipping"])
def test_what_keeps_state_is_refused_on_a_parameter_server(parameter_server, kind):
    message = parameter_server[kind]
    assert message.startswith("ClippedOptimizer was built under ParameterServerStrategy")
    assert "ClipByGlobalNorm" in message
    assert "MultiWorkerMirroredStrategy" in message
