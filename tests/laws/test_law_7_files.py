"""Law 7: a file loads even if other variables are trainable now, and restores state that fits."""

import warnings

import keras
import numpy as np
import pytest

from keras_clip import AdaGC, ClippedOptimizer, Outliers
from tests.support.gradient_stream import assert_identical, values

INPUTS = np.linspace(-1, 1, 32, dtype="float32").reshape(8, 4)
TARGETS = INPUTS[:, :1] ** 2

OPTIONS = {
    "max_norm": lambda: {"max_norm": 0.5},
    "skip": lambda: {"max_norm": 0.5, "nonfinite": "skip", "max_consecutive_skips": 3},
    "AdaGC": lambda: {"clipper": AdaGC(start_clip_steps=2)},
    "max_update_ratio": lambda: {"max_update_ratio": {".*dense.*": 0.01, "default": 0.02}},
    "max_weight": lambda: {"max_weight": 0.4, "skip_above": 9.0},
    "outliers": lambda: {"skip_above": Outliers(window=4, warm_up=2)},
}


def model(optimizer):
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.Dense(1)]
    )
    made.compile(optimizer, loss="mse")
    return made


def fit(made):
    made.fit(INPUTS, TARGETS, batch_size=4, epochs=2, shuffle=False, verbose=0)


def freeze(made):
    made.layers[0].trainable = False


def unfreeze(made):
    made.layers[0].trainable = True


def add_lora(made):
    made.layers[0].enable_lora(2)


def quantize(made):
    for layer in made.layers:
        layer.quantize("int8")


CHANGES = (freeze, unfreeze, add_lora, quantize)
# Compiled steps take seconds: other backends run every second pair.
PAIRS = [
    pytest.param(option, change, marks=[pytest.mark.any_backend] if (row + column) % 2 else [])
    for row, option in enumerate(OPTIONS)
    for column, change in enumerate(CHANGES)
]


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
@pytest.mark.filterwarnings("ignore:A part of the state of:UserWarning")
@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
@pytest.mark.parametrize(("options", "change"), PAIRS)
def test_a_file_saved_after_the_trainable_variables_changed(options, change, tmp_path):
    made = model(ClippedOptimizer("adam", **OPTIONS[options]()))
    if change is unfreeze:
        freeze(made)
        made.compile(made.optimizer, loss="mse")
    fit(made)
    change(made)
    expected = made.predict(INPUTS, verbose=0)
    made.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(INPUTS, verbose=0), expected, rtol=1e-5)
    if change in (freeze, unfreeze):
        again.fit(INPUTS, TARGETS, verbose=0)


def test_state_that_does_not_fit_is_named_in_one_warning(tmp_path):
    made = model(ClippedOptimizer("sgd", clipper=AdaGC(start_clip_steps=2)))
    fit(made)
    freeze(made)
    made.save(tmp_path / "m.keras")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = keras.models.load_model(tmp_path / "m.keras")
    messages = [str(w.message) for w in caught if "A part of the state" in str(w.message)]
    assert len(messages) == 1
    assert "['clipper.gamma']" in messages[0]
    # The rest is restored.
    assert int(again.optimizer.clipper.count.numpy()) == 2
    np.testing.assert_array_equal(
        again.optimizer.history["grad_norm"], made.optimizer.history["grad_norm"]
    )


@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_weights_of_one_optimizer_in_another_are_a_warning(inner, tmp_path):
    """With three variables the wrapper once saved as many keys as Adam, and loading raised."""
    layers = [keras.Input((5, 2)), keras.layers.LSTM(3)]
    saved, loaded = (
        keras.Sequential(layers),
        keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(3)]),
    )
    for each, optimizer in [(saved, ClippedOptimizer(inner)), (loaded, "nadam")]:
        each.compile(optimizer, loss="mse")
        each.fit(np.ones((4, 5, 2)), np.ones((4, 3)), verbose=0)
    saved.save_weights(tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        loaded.load_weights(tmp_path / "m.weights.h5")
    assert_identical(values(loaded.weights), values(saved.weights))


def test_the_file_holds_the_updates_there_were(tmp_path):
    made = model(ClippedOptimizer("sgd"))
    fit(made)
    made.save_weights(tmp_path / "m.weights.h5")
    assert (tmp_path / "m.weights.h5").stat().st_size < 40_000
    again = model(ClippedOptimizer("sgd", history_size=3))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(again.optimizer.history["step"], [1, 2, 3])


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="checkpoints of TensorFlow")
def test_a_checkpoint_of_one_goes_on_in_the_other(tmp_path):
    """By the two calls of docs/saving-and-loading.md."""
    import tensorflow as tf

    def trained(optimizer, steps):
        variable = keras.Variable(np.ones(3, "float32"))
        optimizer.build([variable])
        for step in range(steps):
            optimizer.apply([keras.ops.ones(3) * (step + 1.0)], [variable])
        return optimizer

    bare = trained(keras.optimizers.Adam(0.1), 3)
    path = tf.train.Checkpoint(optimizer=bare).save(str(tmp_path / "bare"))
    wrapper = trained(ClippedOptimizer(keras.optimizers.Adam(0.1)), 0)
    holder = tf.train.Checkpoint(optimizer=wrapper.inner_optimizer)
    holder.restore(path).assert_existing_objects_matched()
    assert_identical(values(wrapper.inner_optimizer.variables), values(bare.variables))

    path = tf.train.Checkpoint(optimizer=wrapper).save(str(tmp_path / "wrapped"))
    again = trained(keras.optimizers.Adam(0.1), 0)
    inside = tf.train.Checkpoint(inner_optimizer=again)
    tf.train.Checkpoint(optimizer=inside).restore(path).expect_partial()
    assert_identical(values(again.variables), values(bare.variables))
