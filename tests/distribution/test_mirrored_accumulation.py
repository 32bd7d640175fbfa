"""`gradient_accumulation_steps` of the wrapped optimizer under MirroredStrategy."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer
from tests.support.family import whole_family
from tests.support.gradient_stream import assert_close, assert_identical, values
from tests.support.mirrored import copies, mirrored_strategy, train
from tests.support.optimizers import keras_has

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="tf.distribute is TensorFlow's"
)

ONE_DEVICE = None


@pytest.fixture(scope="module")
def strategy():
    return mirrored_strategy()


def adam(**options):
    return keras.optimizers.AdamW(0.05, weight_decay=0.1, gradient_accumulation_steps=2, **options)


def members():
    mapping = {".*bias": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(adam(), mapping))


def everything_at_once():
    clipped = ClippedOptimizer(
        adam(use_ema=True),
        clipper=whole_family(),
        max_update_ratio={".*kernel": 0.01, "default": 0.02},
        max_weight=2.0,
        nonfinite="skip",
    )
    return keras.optimizers.LossScaleOptimizer(clipped, initial_scale=64.0)


CASES = {
    "plain": lambda: ClippedOptimizer(adam(use_ema=True), 0.5),
    "everything at once": everything_at_once,
    "limited": lambda: ClippedOptimizer(adam(use_ema=True), 0.5, max_update_ratio=0.01),
    "members": lambda: ClippedOptimizer(members(), 0.5, max_update_ratio=0.01),
}


NAMES = [
    name if name == "everything at once" else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in CASES
]


@pytest.mark.parametrize("name", NAMES)
def test_replicas_equal_one_device(strategy, name):
    if name == "members" and not keras_has("MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    single, mirrored = (train(where, CASES[name]) for where in (ONE_DEVICE, strategy))
    assert_close(mirrored.get_weights(), single.get_weights(), rtol=5e-6)
    states = (values(model.optimizer.variables) for model in (mirrored, single))
    assert_close(*states, rtol=5e-6)


@pytest.mark.exhaustive
def test_micro_batches_equal_batches_of_twice_the_size(strategy):
    micro = train(strategy, lambda: ClippedOptimizer(adam(), 0.5), batch_size=8)
    whole = train(
        ONE_DEVICE,
        lambda: ClippedOptimizer(keras.optimizers.AdamW(0.05, weight_decay=0.1), 0.5),
        batch_size=16,
    )
    assert int(micro.optimizer.iterations.numpy()) == 12
    assert_close(micro.get_weights(), whole.get_weights(), rtol=5e-6)


def test_every_replica_has_the_same_sums_in_the_midst(strategy):
    """A checkpoint keeps the first replica's state, so all replicas must be equal."""
    model = train(strategy, lambda: ClippedOptimizer(adam(), 0.5), epochs=1)
    sums = [v for v in model.optimizer.variables if "gradient_accumulator" in v.path]
    assert any(np.abs(variable.numpy()).max() > 0 for variable in sums)  # 3 micro-batches of 2
    for variable in model.optimizer.variables:
        first, second = copies(variable)
        assert_identical([first], [second])


def test_what_keras_cannot_do_is_refused(strategy):
    with pytest.raises(ValueError, match="Leave ema_overwrite_frequency out"):
        train(
            strategy, lambda: ClippedOptimizer(adam(use_ema=True, ema_overwrite_frequency=2), 0.5)
        )


def test_the_bare_optimizer_raises(strategy):
    """The documented defect: if Keras fixes it, our own code is no longer needed."""
    with pytest.raises(RuntimeError, match="merge_call"):
        train(strategy, adam)
