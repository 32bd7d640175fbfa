"""A number of a clipper: fixed, assigned during training, or a function of the step."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip.types import Tensor, ThresholdValue

_OR_A_FUNCTION = ", a keras.optimizers.schedules.LearningRateSchedule, or a callable of the step"


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def concrete(value: Any) -> Any:
    """Return a concrete scalar of any kind as a float, and anything else unchanged.

    `optimizer.max_norm *= 0.5` and `optimizer.max_norm = optimizer.grad_norm` therefore work, as
    for a learning rate. It waits for the device, which is safe outside of a step.
    """
    if isinstance(value, keras.Variable):
        value = value.value
    is_array = isinstance(value, np.ndarray) or ops.is_tensor(value)
    if not is_array or tuple(value.shape) != () or "bool" in str(value.dtype):
        return value
    try:
        return float(ops.convert_to_numpy(value))
    except Exception as error:  # each framework has its own error for a traced tensor
        raise TypeError(
            "A threshold cannot be assigned inside a compiled step. Assign it between steps, or "
            "make it a function of the step. Received a tensor without a value yet: "
            f"{value!r}."
        ) from error


def check_number(
    name: str,
    value: Any,
    accepted: str | None = None,
    *,
    minimum: float = 0.0,
    maximum: float = math.inf,
) -> float:
    """Return `value` as a float, or raise an error that names the accepted values."""
    accepted = accepted or _in_words(minimum, maximum)
    if not is_number(value):
        raise TypeError(f"{name} must be {accepted}. Received: {name}={value!r}.")
    number = float(value)
    if not minimum <= number <= maximum:
        raise ValueError(f"{name} must be {accepted}. Received: {name}={value!r}.")
    return number


def _in_words(minimum: float, maximum: float) -> str:
    if math.isinf(minimum):
        return "a number"
    if math.isinf(maximum):
        return f"a number that is at least {minimum:g}"
    return f"a number from {minimum:g} to {maximum:g}"


class Threshold:
    """Declare a constructor argument of a `Clipper` that can change during training.

    The argument is a number, a `LearningRateSchedule` or a callable of the step. Once the
    optimizer is built, a variable holds the number. A number that you assign is saved with the
    model and reaches a step that is already compiled. A function is evaluated at each update. In
    each case, `update.evaluate(self.name)` returns the current value as a tensor.

    `Clipper` writes every declared threshold into the config and reads it back.

    Args:
        minimum: float, the smallest number accepted. Defaults to 0.
        maximum: float, the largest number accepted. Defaults to infinity.
        optional: bool, whether None is accepted too, and means no threshold. Defaults to
            False.
        note: str, added to the accepted values in error messages. Defaults to none.

    Raises:
        TypeError: on assignment, the value is not a number, schedule or callable; or it changes
            between a number and a function once the optimizer is built.
        ValueError: on assignment, the number is NaN or out of bounds.

    Example:
        >>> import keras, keras_clip
        >>> @keras.saving.register_keras_serializable("docs")
        ... class SoftClip(keras_clip.Clipper):
        ...     height = keras_clip.Threshold()
        ...     def __init__(self, height=1.0):
        ...         self.height = height
        ...     def clip(self, update):
        ...         height = update.evaluate(self.height)
        ...         return [height * keras.ops.tanh(g / height) for g in update.gradients]
        >>> optimizer = keras_clip.ClippedOptimizer("sgd", clipper=SoftClip(height=2.0))
        >>> optimizer.clipper.get_config()
        {'height': 2.0}
    """

    def __init__(
        self,
        *,
        minimum: float = 0.0,
        maximum: float = math.inf,
        optional: bool = False,
        note: str = "",
    ) -> None:
        self._bounds = {"minimum": minimum, "maximum": maximum}
        self._optional = optional
        self._accepted = _in_words(minimum, maximum) + note + _OR_A_FUNCTION
        if optional:
            self._accepted += ", or None"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, clipper: Any, owner: type | None = None) -> Any:
        return self if clipper is None else held_thresholds(clipper)[self._name].value

    def __set__(self, clipper: Any, value: ThresholdValue | None) -> None:
        held = held_thresholds(clipper)
        if self._name in held:
            held[self._name].assign(value)
        else:
            held[self._name] = HeldThreshold(self, value)

    @property
    def name(self) -> str:
        """Name of the argument, also used in messages and for the variable."""
        return self._name

    def check(self, value: Any) -> Any:
        """Return a number as a float and any other accepted value unchanged, or raise."""
        value = concrete(value)
        if callable(value) or (value is None and self._optional):
            return value
        return check_number(self._name, value, self._accepted, **self._bounds)


def held_thresholds(clipper: Any) -> dict[str, "HeldThreshold"]:
    """Return the thresholds of `clipper`, by name."""
    held: dict[str, HeldThreshold] = vars(clipper).setdefault("_thresholds", {})
    return held


class HeldThreshold:
    """The value of a `Threshold` on one clipper.

    Args:
        declaration: the name, and the accepted values.
        value: number, `LearningRateSchedule`, callable of the step, or None.
    """

    def __init__(self, declaration: Threshold, value: ThresholdValue | None) -> None:
        self._declaration = declaration
        self._built = False
        self._variable: Any = None
        self._value = declaration.check(value)

    def build(self, clipper: Any) -> None:
        """Create the variable of a number among the variables of `clipper`."""
        self._built = True
        if is_number(self._value):
            self._variable = clipper.add_variable(
                (), initializer=self._initial_value, name=self._declaration.name
            )

    def _initial_value(self, shape: tuple[int, ...], dtype: str) -> Tensor:
        # keras.initializers.Constant rounds to float32 on the way to float64.
        return ops.convert_to_tensor(np.full(shape, self._value, dtype=dtype))

    @property
    def value(self) -> Any:
        """The variable of a number (before `build`, the number), the function, or None."""
        return self._value if self._variable is None else self._variable

    def assign(self, value: ThresholdValue | None) -> None:
        """Set another threshold for all later updates."""
        if not self._built:
            self._value = self._declaration.check(value)
            return
        value = self._declaration.check(value)
        if self._variable is None or not is_number(value):
            name = self._declaration.name
            raise TypeError(
                f"{name} cannot change between a number and a function of the step (or None) "
                "once the optimizer is built, because compiled steps keep the first kind. "
                f"Received: {name}={value!r}. Assign a number to a threshold that "
                "started as a number, or make a new optimizer."
            )
        self._value = value
        self._variable.assign(value)

    def get_config(self) -> Any:
        """Return a number, a serialized function or None, as `from_config` accepts it."""
        if self._value is not None and not is_number(self._value):
            return keras.saving.serialize_keras_object(self._value)
        if self._variable is None:
            return number_to_config(self._value)
        current = self._variable.numpy()
        # The given number, 0.1 rather than 0.10000000149, unless a checkpoint or an assignment to
        # the variable has changed it since.
        given = np.asarray(self._value, dtype=current.dtype)
        return number_to_config(self._value if given == current else float(current))


def number_to_config(number: Any) -> Any:
    """Return a number in a form that JSON has: infinity as a string."""
    is_infinite = is_number(number) and math.isinf(number)
    return str(float(number)) if is_infinite else number


def threshold_from_config(config: Any, custom_objects: Any = None) -> Any:
    """Return the constructor argument that `HeldThreshold.get_config` wrote."""
    if isinstance(config, Mapping):
        return keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
    return float(config) if config in ("inf", "-inf") else config
