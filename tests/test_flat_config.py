"""`get_config` shows learning rate and `max_norm` as values of their own, and takes them back."""

import keras
import numpy as np
import pytest
from keras.optimizers import SGD, Adam

from keras_clip import AutoClip, ClipByGlobalNorm, ClippedOptimizer


def test_numbers_are_values_of_their_own():
    optimizer = ClippedOptimizer(Adam(0.25), max_norm=0.5)
    optimizer.build([keras.Variable(np.ones(3, "float32"))])
    optimizer.learning_rate, optimizer.max_norm = 0.125, 2.0
    config = optimizer.get_config()
    assert (config["learning_rate"], config["max_norm"]) == (0.125, 2.0)


def test_an_edited_value_counts():
    config = ClippedOptimizer(Adam(0.25), max_norm=0.5).get_config()
    edited = ClippedOptimizer.from_config({**config, "learning_rate": 0.5, "max_norm": 3.0})
    assert float(edited.learning_rate) == 0.5
    assert edited.max_norm == 3.0
    assert isinstance(edited.inner_optimizer, Adam)


def test_an_edited_value_counts_beside_a_short_config():
    inner = {"class_name": "SGD", "config": {"learning_rate": 0.25}}
    made = ClippedOptimizer.from_config({"inner_optimizer": inner, "learning_rate": 0.5})
    assert float(made.learning_rate) == 0.5


def test_a_schedule_comes_back():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    optimizer = ClippedOptimizer(SGD(schedule), max_norm=schedule)
    again = ClippedOptimizer.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("clipper", [AutoClip(), ClipByGlobalNorm(2.0, 1.0)])
def test_other_clippers_stay_nested(clipper):
    config = ClippedOptimizer("sgd", clipper=clipper).get_config()
    assert "max_norm" not in config
    assert config["clipper"]["class_name"] == type(clipper).__name__
    assert ClippedOptimizer.from_config(config).clipper.get_config() == clipper.get_config()


def test_a_learning_rate_without_the_config_of_an_optimizer():
    with pytest.raises(ValueError, match="learning_rate in the config .* inner_optimizer='adam'"):
        ClippedOptimizer.from_config({"inner_optimizer": "adam", "learning_rate": 0.5})
