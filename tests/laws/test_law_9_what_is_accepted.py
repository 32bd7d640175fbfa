"""Law 9: configs and assignments take all that the constructor takes; errors show a fix."""

import json

import keras
import numpy as np
import pytest

from keras_clip import ClipByGlobalNorm, ClippedOptimizer
from tests.support.gradient_stream import apply_all, as_tensors, gradient_stream, make_variables


def built(**options):
    optimizer = ClippedOptimizer("sgd", **options)
    apply_all(optimizer, make_variables(), gradient_stream(1))
    return optimizer


@pytest.mark.parametrize(
    "scalar",
    [
        lambda optimizer: optimizer.max_norm * 0.5,
        lambda optimizer: np.array(0.25),
        lambda optimizer: np.float32(0.25),
        lambda optimizer: as_tensors([np.float32(0.25)])[0],
        lambda optimizer: keras.Variable(0.25),
    ],
)
def test_a_threshold_takes_a_scalar_of_any_kind(scalar):
    optimizer = built(max_norm=0.5)
    optimizer.max_norm = scalar(optimizer)
    assert float(optimizer.max_norm.numpy()) == 0.25
    assert ClippedOptimizer("sgd", max_norm=np.array(0.25)).max_norm == 0.25


def test_a_threshold_takes_the_norm():
    optimizer = built(max_norm=0.5)
    optimizer.max_norm = optimizer.grad_norm
    assert float(optimizer.max_norm.numpy()) == float(optimizer.grad_norm.numpy())
    optimizer.max_norm *= 0.5
    assert float(optimizer.max_norm.numpy()) == float(optimizer.grad_norm.numpy()) / 2


@pytest.mark.parametrize("value", [True, np.array(True), np.ones(2), as_tensors([np.ones(2)])[0]])
def test_a_threshold_takes_nothing_else(value):
    with pytest.raises(TypeError, match="max_norm must be a number"):
        built().max_norm = value


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_tensor_is_checked_as_a_number_is(value):
    with pytest.raises(ValueError, match="max_norm must be a number that is at least 0"):
        built().max_norm = as_tensors([np.float32(value)])[0]


@pytest.mark.parametrize(
    "config",
    [
        {"inner_optimizer": "adam", "max_norm": 2.0},
        {"inner_optimizer": {"class_name": "adam", "config": {"learning_rate": 0.1}}},
        {"inner_optimizer": "adam", "clipper": "auto_clip", "max_weight": 1.0},
        {"inner_optimizer": "adam", "clipper": ["clip_by_norm", "clip_by_value"]},
        {"inner_optimizer": "adam", "clipper": {"class_name": "ZClip", "config": {}}},
    ],
)
def test_a_config_takes_what_the_constructor_takes(config):
    kept = json.dumps(config)
    made = ClippedOptimizer.from_config(config)
    assert isinstance(made.inner_optimizer, keras.optimizers.Adam)
    assert json.dumps(config) == kept


@pytest.mark.parametrize(
    "options",
    [
        {"max_norm": float("inf")},
        {"clipper": ClipByGlobalNorm(float("inf"), norm_type=float("inf"))},
        {"max_weight": float("inf")},
    ],
)
def test_configs_are_strict_json(options):
    config = json.loads(
        json.dumps(ClippedOptimizer("sgd", **options).get_config(), allow_nan=False)
    )
    again = ClippedOptimizer.from_config(config)
    assert again.get_config() == config
    if "max_norm" in options:
        assert again.max_norm == float("inf")


class OfAnotherLibrary:
    pass


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("optax._src.base", "This one is of optax.*chain optax.clip_by_global_norm"),
        ("torch.optim.sgd", r"This one is of torch.*keras.optimizers.OfAnotherLibrary\(...\)"),
        ("tf_keras.src.optimizers.sgd", "Keras 2.*Unset TF_USE_LEGACY_KERAS"),
    ],
)
def test_an_optimizer_of_another_library_says_what_to_write(module, hint, monkeypatch):
    monkeypatch.setattr(OfAnotherLibrary, "__module__", module)
    with pytest.raises(TypeError, match=f"(?s){hint}.*Received: inner_optimizer="):
        ClippedOptimizer(OfAnotherLibrary())


def test_a_class_says_to_make_an_instance():
    with pytest.raises(TypeError, match=r"This is a class. Make an instance: Adam\(...\)"):
        ClippedOptimizer(keras.optimizers.Adam)


def test_an_own_clip_of_keras_says_how_to_keep_the_moments():
    with pytest.raises(ValueError, match="Set optimizer.global_clipnorm = None, which keeps"):
        ClippedOptimizer(keras.optimizers.Adam(global_clipnorm=1.0))
