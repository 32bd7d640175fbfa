"""Law 7: a file of Keras's clip goes on with the wrapper, and one of the wrapper without it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_clip import ClippedOptimizer, adopt
from tests.support.gradient_stream import assert_close, assert_identical, values
from tests.support.models import fit, make_model


def clipping_adam():
    return keras.optimizers.Adam(0.02, global_clipnorm=0.5)


def wrapped_adam(max_norm=0.5):
    return ClippedOptimizer(keras.optimizers.Adam(0.02), max_norm=max_norm)


def never_stopped():
    """Keras's clip all the way."""
    model = make_model(clipping_adam())
    fit(model)
    fit(model, epochs=3)
    return model


def check_goes_on(model, expected):
    fit(model, epochs=3)
    assert int(model.optimizer.iterations) == 30
    assert_close(model.get_weights(), expected.get_weights())


def test_a_keras_file_of_keras_clip_goes_on_with_the_wrapper(tmp_path):
    saved = make_model(clipping_adam())
    fit(saved)
    saved.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    adopt(loaded)
    assert isinstance(loaded.optimizer, ClippedOptimizer)
    check_goes_on(loaded, never_stopped())


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
@pytest.mark.parametrize(
    ("before", "after"), [(clipping_adam, wrapped_adam), (wrapped_adam, clipping_adam)]
)
def test_weights_of_one_go_on_in_the_other(before, after, name, tmp_path):
    saved = make_model(before())
    fit(saved)
    (saved.save if name == "m.keras" else saved.save_weights)(tmp_path / name)
    loaded = make_model(after())
    loaded.optimizer.build(loaded.trainable_variables)
    loaded.load_weights(tmp_path / name)
    check_goes_on(loaded, never_stopped())


def test_a_loaded_wrapper_goes_on_as_its_inner_optimizer(tmp_path):
    """Bit for bit the bare optimizer, which the wrapper at an infinite threshold is."""
    saved = make_model(wrapped_adam(max_norm=float("inf")))
    fit(saved)
    saved.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    loaded.compile(loaded.optimizer.inner_optimizer, loss="mse")
    bare = make_model(keras.optimizers.Adam(0.02))
    fit(bare)
    for model in (loaded, bare):
        fit(model, epochs=3)
    assert_identical(loaded.get_weights(), bare.get_weights())
    assert_identical(values(loaded.optimizer.variables), values(bare.optimizer.variables))


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="checkpoints of TensorFlow")
@pytest.mark.parametrize("to_wrapper", [True, False])
def test_a_checkpoint_of_one_goes_on_in_the_other(to_wrapper, tmp_path):
    import tensorflow as tf

    saved = make_model(clipping_adam() if to_wrapper else wrapped_adam())
    fit(saved)
    path = tf.train.Checkpoint(model=saved, optimizer=saved.optimizer).save(str(tmp_path / "c"))
    loaded = make_model(wrapped_adam() if to_wrapper else clipping_adam())
    loaded.optimizer.build(loaded.trainable_variables)
    if to_wrapper:
        holder = tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer.inner_optimizer)
    else:
        inside = tf.train.Checkpoint(inner_optimizer=loaded.optimizer)
        holder = tf.train.Checkpoint(model=loaded, optimizer=inside)
    holder.restore(path).expect_partial()
    check_goes_on(loaded, never_stopped())


PROGRAM = """
import sys, keras
try:
    keras.models.load_model("m.keras")
except TypeError as error:
    print(str(error).splitlines()[0])
loaded = keras.models.load_model("m.keras", compile=False)
loaded.compile(keras.optimizers.Adam(0.02, global_clipnorm=0.5), loss="mse")
loaded.optimizer.build(loaded.trainable_variables)
loaded.load_weights("m.keras")
print(int(loaded.optimizer.iterations), "keras_clip" in sys.modules)
"""


@pytest.mark.any_backend
@pytest.mark.exhaustive  # Older versions of Keras have another text.
def test_a_file_where_keras_clip_was_not_imported(tmp_path):
    """The error that docs/saving-and-loading.md quotes, and what it says to do."""
    saved = make_model(wrapped_adam())
    fit(saved)
    saved.save(tmp_path / "m.keras")
    printed = subprocess.check_output(
        [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM],
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    error, goes_on = printed.splitlines()
    assert error.startswith("Could not locate class 'ClippedOptimizer'.")
    page = (Path(__file__).parents[2] / "docs" / "saving-and-loading.md").read_text()
    assert f"TypeError: {error.partition(' If ')[0]}\n" in page
    assert goes_on == "12 False"
