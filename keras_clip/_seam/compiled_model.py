"""Compile a model again with another optimizer, and with its other arguments unchanged."""

from typing import Any

import keras

from keras_clip.types import Optimizer

PRIVATE_MODEL_NAMES: dict[str, str] = {
    "_compile_config": "the arguments of `compile` as objects; the public `get_compile_config` "
    "returns names, from which Keras cannot make a lambda or an unregistered class again",
}


def compile_again(model: Any, optimizer: Optimizer) -> None:
    """Compile a compiled model with `optimizer`, and with its loss and metrics themselves."""
    # Keras resets the metrics of a newly compiled model only once they have seen a batch.
    model.reset_metrics()
    arguments = {**model._compile_config.config, "optimizer": optimizer}
    # Past a `compile` of the model's own class, which may take other arguments. The optimizer
    # scales the loss already if it should.
    keras.Model.compile(model, **arguments, auto_scale_loss=False)
