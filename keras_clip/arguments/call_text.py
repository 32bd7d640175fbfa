"""An object as the call that makes one like it, for `repr`."""

import inspect
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import keras
import numpy as np

from keras_clip.arguments.thresholds import is_number


def call_text(made: Any) -> str:
    """Return the call that makes `made`, in one line, from its config.

    The first argument is always there, others only if they differ from their defaults. Functions
    appear by their names.
    """
    try:
        with warnings.catch_warnings():
            # Keras warns when it serializes a lambda.
            warnings.simplefilter("ignore")
            return _text(keras.saving.serialize_keras_object(made))
    # A repr must not raise: inside a trace no value can be read.
    except Exception:
        return object.__repr__(made)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        if {"class_name", "config"} <= {*value}:
            return _serialized_text(value)
        return "{" + ", ".join(f"{key!r}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    # The form that infinity has in a config.
    if value in ("inf", "-inf"):
        return f"float({value!r})"
    return _number_text(value) if is_number(value) else repr(value)


def _number_text(number: Any) -> str:
    # A learning rate is a float32 on the device: 0.001, not 0.0010000000474974513.
    with np.errstate(over="ignore"):
        single = np.float32(number)
    return str(single) if isinstance(number, float) and float(single) == number else repr(number)


def _serialized_text(serialized: Mapping[str, Any]) -> str:
    name, config = serialized["class_name"], serialized["config"]
    if name == "__lambda__":
        return "<lambda>"
    if not isinstance(config, Mapping):
        return str(config)
    cls = getattr(import_module(serialized["module"]), name, None)
    cls = cls or keras.saving.get_registered_object(serialized["registered_name"])
    return f"{name}({', '.join(_arguments(cls, config))})"


def _arguments(cls: Any, config: Mapping[str, Any]) -> list[str]:
    parameters = inspect.signature(cls).parameters.values()
    texts: list[str] = []
    for parameter in parameters:
        name, default = parameter.name, parameter.default
        if name not in config or (name == "name" and _is_given_by_keras(cls, config[name])):
            continue
        value = config[name]
        if not texts and default is parameter.empty:
            texts.append(_text(value))
        elif not texts or value != (list(default) if isinstance(default, tuple) else default):
            texts.append(f"{name}={_text(value)}")
    return texts


def _is_given_by_keras(cls: Any, name: str) -> bool:
    """Whether it is a name such as `adam_3`."""
    return bool(name.replace("_", "").rstrip("0123456789") == cls.__name__.lower())
