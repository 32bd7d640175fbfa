"""A clipping threshold: a number that may be reassigned while training, or a schedule."""

import math
import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip.types import Tensor, ThresholdValue

_ACCEPTED = (
    "a number that is at least 0 (float('inf') observes without clipping), a "
    "keras.optimizers.schedules.LearningRateSchedule, or a callable of the step"
)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_number(name: str, value: Any, accepted: str = _ACCEPTED) -> float:
    """Return `value` as a float, or raise an error that says what is accepted."""
    if not is_number(value):
        raise TypeError(f"{name} must be {accepted}. Received: {name}={value!r}.")
    number = float(value)
    if math.isnan(number) or number < 0:
        raise ValueError(f"{name} must be {accepted}. Received: {name}={value!r}.")
    return number


class Threshold:
    """A number held in a Keras variable, or a function of the step.

    A number lives in a variable, so that assigning it reaches a step that is already traced
    and is saved with the model; a schedule or callable is evaluated at each update.

    Args:
        name: name of the argument it was given as; messages and the variable carry it.
        value: number, `LearningRateSchedule` or callable of the step.

    Raises:
        TypeError: `value` is none of these.
        ValueError: `value` is negative or NaN.
    """

    def __init__(self, name: str, value: ThresholdValue) -> None:
        self._name = name
        self._built = False
        self._variable: Any = None
        self._value = value if callable(value) else check_number(name, value)

    def build(self, clipper: Any) -> None:
        """Create the variable of a number among the variables of `clipper`."""
        self._built = True
        if not callable(self._value):
            self._variable = clipper.add_variable(
                (), initializer=self._initial_value, name=self._name
            )

    def _initial_value(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        # keras.initializers.Constant rounds to float32 on the way to float64.
        return ops.convert_to_tensor(np.full(shape, self._value, dtype=dtype))

    def at(self, step: Tensor) -> Tensor:
        """Return the threshold that holds at `step`, a scalar tensor."""
        if callable(self._value):
            return ops.convert_to_tensor(self._value(step))
        return self._variable.value

    @property
    def value(self) -> Any:
        """The variable of a number (before it is built, the number), or the function."""
        return self._value if self._variable is None else self._variable

    def assign(self, value: ThresholdValue) -> None:
        """Set another threshold, from the next update on."""
        if not self._built:
            self._value = value if callable(value) else check_number(self._name, value)
            return
        if callable(value) or callable(self._value):
            raise TypeError(
                f"{self._name} cannot change between a number and a function of the step once "
                f"the optimizer is built, because compiled steps keep the first kind. "
                f"Received: {self._name}={value!r}. Assign a number to a threshold that "
                "started as a number, or make a new optimizer."
            )
        self._value = check_number(self._name, value)
        self._variable.assign(self._value)

    def get_config(self) -> Any:
        """Return a number or a serialized function, as `from_config` takes it."""
        if callable(self._value):
            return keras.saving.serialize_keras_object(self._value)
        if self._variable is None:
            return self._value
        current = self._variable.numpy()
        # The number as it was given, 0.1 rather than 0.10000000149, unless a checkpoint or
        # an assignment to the variable itself has changed it since.
        given = np.asarray(self._value, dtype=current.dtype)
        return self._value if given == current else float(current)

    @staticmethod
    def from_config(config: Any) -> ThresholdValue:
        """Return the constructor argument that `get_config` wrote."""
        if isinstance(config, dict):
            value: ThresholdValue = keras.saving.deserialize_keras_object(config)
            return value
        return config  # type: ignore[no-any-return]
