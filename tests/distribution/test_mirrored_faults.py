"""A NaN on one replica of a MirroredStrategy: all replicas make the same decision."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, NonFiniteGradientError, RaiseOnNonFinite
from tests.support.gradient_stream import assert_close, assert_identical
from tests.support.mirrored import copies, mirrored_strategy, train
from tests.support.models import data, make_model

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

ONE_DEVICE = None
# In the second half of the second batch: on the second of two replicas.
SPOILED = 16 + 12


@pytest.fixture(scope="module")
def strategy():
    return mirrored_strategy()


@pytest.fixture
def targets():
    values = data()[1].copy()
    values[SPOILED] = np.nan
    return values


def clipped(**options):
    steps = options.pop("accumulate", None)
    return ClippedOptimizer(
        keras.optimizers.Adam(0.1, gradient_accumulation_steps=steps), 0.5, **options
    )


def scaled(**options):
    return keras.optimizers.LossScaleOptimizer(clipped(**options), initial_scale=64.0)


@pytest.mark.parametrize("accumulate", [None, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_skip(strategy, targets, accumulate):
    def make():
        return clipped(nonfinite="skip", accumulate=accumulate)

    single, mirrored = (train(where, make, targets=targets) for where in (ONE_DEVICE, strategy))
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=2e-6)
    updates, bad = (12, 4) if accumulate is None else (6, 4)
    assert int(mirrored.optimizer.skipped_steps.numpy()) == bad
    assert int(mirrored.optimizer.iterations.numpy()) == updates - bad
    for variable in mirrored.optimizer.variables:
        assert_identical(*([copy] for copy in copies(variable)))


@pytest.mark.exhaustive
def test_zero(strategy, targets):
    def make():
        return clipped(nonfinite="zero")

    mirrored = train(strategy, make, targets=targets)
    assert all(np.isfinite(weight).all() for weight in mirrored.get_weights())
    assert int(mirrored.optimizer.zeroed_steps.numpy()) == 4


@pytest.mark.exhaustive
def test_raise(strategy, targets):
    import tensorflow as tf

    with strategy.scope():
        model = make_model(clipped(nonfinite="raise"), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((data()[0], targets)).batch(16)
    with pytest.raises(NonFiniteGradientError, match="hidden/kernel"):
        model.fit(batches, shuffle=False, verbose=0, callbacks=[RaiseOnNonFinite()])
    assert int(model.optimizer.iterations.numpy()) == 1


def test_loss_scale_is_lowered_and_nothing_else_changes(strategy, targets):
    single, mirrored = (train(where, scaled, targets=targets) for where in (ONE_DEVICE, strategy))
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=2e-6)
    # One bad batch in each of four epochs.
    assert float(mirrored.optimizer.dynamic_scale.numpy()) == 64.0 / 2**4
    wrapper = mirrored.optimizer.inner_optimizer
    assert np.flatnonzero(wrapper.history["skipped"]).tolist() == [1, 4, 7, 10]
    for variable in wrapper.record_variables:
        assert_identical(*([copy] for copy in copies(variable)))


@pytest.mark.endurance
def test_loss_scale_of_keras_alone_lets_the_nan_through(strategy, targets):
    """The documented defect: it asks the first replica only."""

    def make():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1), initial_scale=64.0)

    mirrored = train(strategy, make, targets=targets)
    assert any(np.isnan(weight).any() for weight in mirrored.get_weights())


@pytest.mark.exhaustive
def test_mixed_float16_compiles_to_the_same(strategy, targets):
    """`compile` adds the LossScaleOptimizer by itself."""
    keras.config.set_dtype_policy("mixed_float16")
    mirrored = train(strategy, clipped, targets=targets)
    assert isinstance(mirrored.optimizer, keras.optimizers.LossScaleOptimizer)
    assert all(np.isfinite(weight).all() for weight in mirrored.get_weights())
    # One bad batch in each of four epochs; and the first scales may overflow by themselves.
    assert float(mirrored.optimizer.dynamic_scale.numpy()) <= 2.0**15 / 2**4
