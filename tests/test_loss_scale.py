"""A LossScaleOptimizer around the wrapper: overflows are counted, and the scale has a floor."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, RaiseOnNonFinite, TooManySkipsError
from tests.support.gradient_stream import assert_identical, values
from tests.support.models import data, make_model

BACKEND = keras.config.backend()

pytestmark = pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")


def model(initial_scale=8.0, **options):
    wrapper = ClippedOptimizer("sgd", nonfinite="skip", **options)
    outer = keras.optimizers.LossScaleOptimizer(wrapper, initial_scale=initial_scale)
    return make_model(outer), wrapper


def overflow(made, times):
    inputs, targets = data()
    for _ in range(times):
        made.train_on_batch(inputs[:8], targets[:8] * np.nan)


def test_overflows_are_skipped_steps():
    made, wrapper = model()
    overflow(made, 3)
    assert int(wrapper.skipped_steps.numpy()) == 3
    assert float(made.optimizer.dynamic_scale.numpy()) == 1.0


@pytest.mark.parametrize("initial", [0.5, 1.0, 4.0])
def test_the_scale_does_not_fall_below_one_nor_below_its_start(initial):
    made, _ = model(initial)
    overflow(made, 40)
    assert float(made.optimizer.dynamic_scale.numpy()) == min(initial, 1.0)


@pytest.mark.parametrize("options", [{}, {"max_update_ratio": 0.5}, {"history_size": 0}])
def test_each_overflow_has_a_row(options):
    made, wrapper = model(**options)
    inputs, targets = data()
    for bad in (False, True, True, False):
        made.train_on_batch(inputs[:8], targets[:8] * (np.nan if bad else 1.0))
    record = wrapper.history
    if options.get("history_size") == 0:
        assert not record["step"].size
        return
    assert record["step"].tolist() == [0, 1, 2, 3]
    assert record["skipped"].tolist() == [False, True, True, False]
    assert np.isnan(record["grad_norm"]).tolist() == [False, True, True, False]
    assert record["clip_scale"][1:3].tolist() == [0.0, 0.0]
    if options:
        assert np.isnan(record["update_ratio"]).tolist() == [False, True, True, False]


@pytest.mark.skipif(BACKEND != "jax", reason="a debugger of JAX")
@pytest.mark.parametrize("options", [{}, {"max_update_ratio": 0.5}])
def test_an_overflow_leaves_no_nan_in_the_state(options):
    import jax

    made, wrapper = model(**options)
    inputs, targets = data()
    overflow(made, 1)
    assert np.isnan(wrapper.history["grad_norm"]).all()
    jax.config.update("jax_debug_nans", True)
    try:
        made.train_on_batch(inputs[:8], targets[:8])
    finally:
        jax.config.update("jax_debug_nans", False)
    assert wrapper.history["skipped"].tolist() == [True, False]


def test_training_goes_on_after_any_number_of_overflows():
    made, _ = model()
    reference, _ = model(1.0)
    overflow(made, 200)
    inputs, targets = data()
    for each in (made, reference):
        each.train_on_batch(inputs[:8], targets[:8])
    assert_identical(values(made.trainable_variables), values(reference.trainable_variables))


def test_the_limit_counts_overflows_and_speaks_at_the_next():
    made, wrapper = model(max_consecutive_skips=5)
    inputs, targets = data()
    with pytest.raises(TooManySkipsError, match="an overflow under the loss scale"):
        made.fit(inputs, targets * np.nan, batch_size=4, verbose=0, callbacks=[RaiseOnNonFinite()])
    assert int(wrapper.skipped_steps.numpy()) == 6


@pytest.mark.skipif(BACKEND == "jax", reason="what XLA compiles cannot raise")
def test_the_limit_speaks_without_a_callback():
    made, wrapper = model(max_consecutive_skips=5)
    overflow(made, 5)
    error = TooManySkipsError
    if BACKEND == "tensorflow":
        import tensorflow as tf

        error = tf.errors.InvalidArgumentError
    with pytest.raises(error, match="max_consecutive_skips=5"):
        overflow(made, 1)
    assert int(wrapper.skipped_steps.numpy()) in (5, 6)
    assert wrapper.history["skipped"].tolist() == [True] * 6


def test_an_applied_update_ends_the_row():
    made, wrapper = model(max_consecutive_skips=5)
    inputs, targets = data()
    with np.errstate(all="ignore"):
        for _ in range(3):
            overflow(made, 4)
            made.train_on_batch(inputs[:8], targets[:8])
    wrapper.raise_if_nonfinite()
    assert int(wrapper.skipped_steps.numpy()) == 12


def test_around_another_optimizer_keras_is_as_it_was():
    outer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1.0)
    made = make_model(outer)
    overflow(made, 3)
    assert float(outer.dynamic_scale.numpy()) == 0.125
