"""Law 4: N replicas equal one device on the same global batch, with an active clip."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer
from tests.conftest import LOGICAL_DEVICES
from tests.support.family import whole_family
from tests.support.gradient_stream import assert_close, assert_identical, values
from tests.support.models import data, make_model

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)


@pytest.fixture(scope="module")
def strategy():
    import tensorflow as tf

    devices = [f"CPU:{i}" for i in range(LOGICAL_DEVICES)]
    # Collectives keep their group size for the life of a process; this one does not.
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def train(scope, make_optimizer):
    import tensorflow as tf

    with scope:
        model = make_model(make_optimizer(), jit_compile=False)
    # The scale of the inputs grows, so that the halves of a batch are unequal.
    batches = tf.data.Dataset.from_tensor_slices(data()).batch(16)
    model.fit(batches, epochs=4, shuffle=False, verbose=0)
    return model


def one_device():
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("name", [pytest.param("SGD", marks=pytest.mark.endurance), "Adam"])
def test_two_unequal_replicas_equal_one_device(strategy, name):
    def make():
        return ClippedOptimizer(getattr(keras.optimizers, name)(0.1), max_norm=0.5)

    single, mirrored = train(one_device(), make), train(strategy.scope(), make)
    assert float(single.optimizer.grad_norm.numpy()) > 0.5
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=2e-6)
    assert_close([mirrored.optimizer.grad_norm.numpy()], [single.optimizer.grad_norm.numpy()])


# In `make test`, tests/distribution has them too: with accumulation, and in a custom loop.
@pytest.mark.endurance
def test_every_clipper_and_the_projection_of_weights(strategy):
    def make():
        inner = keras.optimizers.Adam(0.1)
        return ClippedOptimizer(inner, clipper=whole_family(), max_weight=0.7)

    single, mirrored = train(one_device(), make), train(strategy.scope(), make)
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=5e-6)
    states = (values(model.optimizer.clipper.variables) for model in (mirrored, single))
    assert_close(*states, rtol=5e-6)
    assert max(np.abs(weight).max() for weight in mirrored.get_weights()) == np.float32(0.7)


@pytest.mark.exhaustive
def test_the_builtin_clip_fails_where_ours_holds(strategy):
    """The documented defect: Keras clips each replica before the all-reduce."""

    def make():
        return keras.optimizers.SGD(0.1, global_clipnorm=0.5)

    single, mirrored = train(one_device(), make), train(strategy.scope(), make)
    start = make_model().get_weights()
    moved = [
        np.sqrt(sum(np.sum((w - s) ** 2) for w, s in zip(model.get_weights(), start, strict=True)))
        for model in (mirrored, single)
    ]
    assert moved[0] / moved[1] > 1.5


def test_idle_clipping_changes_nothing_on_replicas(strategy):
    bare = train(strategy.scope(), lambda: keras.optimizers.Adam(0.1))
    idle = train(strategy.scope(), lambda: ClippedOptimizer(keras.optimizers.Adam(0.1), 1e30))
    assert_identical(idle.get_weights(), bare.get_weights())
