"""The bound of each variable that an optimizer trains."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip.layers.paths import PathPatterns
from keras_clip.thresholds import held_thresholds, threshold_from_config
from keras_clip.types import Tensor, Variable
from keras_clip.weights.weight_clipping import WeightClipping

_DEFAULT = "default"


class WeightGroups:
    """What `max_weight` of a `ClippedOptimizer` may be, in one form.

    Args:
        max_weight: number, schedule, callable of the step or `WeightClipping`, for all
            variables; a dict of path patterns to any of these or None, where the key
            "default" stands for the variables that no pattern matches; or None.

    Raises:
        TypeError: it is none of these, or a pattern is no str.
        ValueError: a number is negative or NaN, the dict is empty, a pattern is no regular
            expression, or one `WeightClipping` is given twice or to a second optimizer.
    """

    def __init__(self, max_weight: Any) -> None:
        self.has_patterns = isinstance(max_weight, Mapping)
        given = dict(max_weight) if self.has_patterns else {_DEFAULT: max_weight}
        if not given:
            raise ValueError(
                "max_weight={} bounds no variable. Give path patterns with a bound each, or None."
            )
        self._patterns = PathPatterns("max_weight", [key for key in given if key != _DEFAULT])
        self.clippings = {key: _as_clipping(value) for key, value in given.items()}
        _check_distinct([c for c in self.clippings.values() if c is not None])
        self.variables: list[Variable] = []
        self._dtype = "float32"
        self._ratios: dict[int, tuple[WeightClipping, float]] = {}

    def claim(self, owner: str) -> None:
        """Note the optimizer that the thresholds belong to."""
        for clipping in self.clippings.values():
            if clipping is not None:
                clipping.claim(owner)

    def build(self, variables: Sequence[Variable], dtype: str) -> None:
        """Create the variables of the thresholds and assign each variable its group."""
        self._patterns.build(variables)
        self.variables = []
        self._dtype = dtype
        for position, clipping in enumerate(self.clippings.values()):
            if clipping is not None:
                held_thresholds(clipping)["max_weight"].build(self._maker(position, dtype))
        self._ratios = {}
        for key, clipping in self.clippings.items():
            if clipping is None:
                continue
            own = [v for v in variables if (self._patterns.of(v) or _DEFAULT) == key]
            for variable, ratio in zip(own, clipping.ratios(own, variables), strict=True):
                self._ratios[id(variable)] = clipping, ratio

    def _maker(self, position: int, dtype: str) -> "_VariableMaker":
        prefix = f"weight_group_{position}_" if self.has_patterns else ""
        return _VariableMaker(self.variables, prefix, dtype)

    def check_patterns(self) -> None:
        """Raise ValueError if a pattern matches no variable."""
        self._patterns.check_all_used()

    def bounds(self, variables: Sequence[Variable], step: Tensor) -> list[tuple[Variable, Tensor]]:
        """Return those of the variables that have a bound, and the bound, a scalar tensor."""
        grouped = [(v, *self._ratios[id(v)]) for v in variables if id(v) in self._ratios]
        limits = {
            id(clipping): _evaluated(clipping.max_weight, step, self._dtype)
            for _, clipping, _ in grouped
        }
        return [
            (variable, _bound(limits[id(clipping)], ratio, variable))
            for variable, clipping, ratio in grouped
        ]

    @property
    def value(self) -> Any:
        """The threshold of all variables, or the groups by their patterns."""
        if self.has_patterns:
            return dict(self.clippings)
        clipping = self.clippings[_DEFAULT]
        return None if clipping is None else clipping.max_weight

    def assign(self, value: Any) -> None:
        """Set another threshold for all variables."""
        clipping = self.clippings.get(_DEFAULT)
        if self.has_patterns or clipping is None:
            raise AttributeError(
                "max_weight can be assigned where it was given as one bound for all variables. "
                f"Received: max_weight={value!r}. Of a dict, assign to the bound of a group: "
                "optimizer.max_weight['pattern'].max_weight = 0.1; of None, make a new optimizer."
            )
        clipping.max_weight = value

    def __bool__(self) -> bool:
        return any(clipping is not None for clipping in self.clippings.values())

    def get_config(self) -> Any:
        """Return what the constructor takes, serialized."""
        serialized = {
            key: keras.saving.serialize_keras_object(clipping)
            for key, clipping in self.clippings.items()
        }
        return serialized if self.has_patterns else serialized[_DEFAULT]


def max_weight_from_config(config: Any, custom_objects: Any = None) -> Any:
    """Return the argument that `WeightGroups.get_config` wrote."""
    if not isinstance(config, Mapping):
        return threshold_from_config(config, custom_objects)
    if "class_name" in config:
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
    return {key: max_weight_from_config(value, custom_objects) for key, value in config.items()}


class _VariableMaker:
    """Gives thresholds their variables, each under a name of its own."""

    def __init__(self, made: list[Variable], prefix: str, dtype: str) -> None:
        self._made = made
        self._prefix = prefix
        self._dtype = dtype

    def add_variable(self, shape: tuple[int, ...], *, initializer: Any, name: str) -> Variable:
        variable = keras.Variable(
            initializer,
            shape=shape,
            dtype=self._dtype,
            trainable=False,
            aggregation="only_first_replica",
            name=self._prefix + name,
        )
        self._made.append(variable)
        return variable


def _as_clipping(value: Any) -> WeightClipping | None:
    if value is None or isinstance(value, WeightClipping):
        return value
    if isinstance(value, str | Mapping) or not (callable(value) or np.isscalar(value)):
        raise TypeError(
            "max_weight must be a number that is at least 0, a LearningRateSchedule, a callable "
            "of the step, a keras_clip.WeightClipping, or a dict of path patterns to these. "
            f"Received: max_weight={value!r}."
        )
    return WeightClipping(value)


def _check_distinct(clippings: Sequence[WeightClipping]) -> None:
    if len({id(clipping) for clipping in clippings}) < len(clippings):
        raise ValueError(
            "max_weight has one WeightClipping for two groups. Make one for each: its "
            "max_weight is a variable of its own."
        )
    for clipping in clippings:
        clipping.check_unclaimed()


def _evaluated(threshold: Any, step: Tensor, dtype: str) -> Tensor:
    if isinstance(threshold, keras.Variable):
        return threshold.value
    return ops.convert_to_tensor(threshold(step), dtype=dtype)


def _bound(limit: Tensor, ratio: float, variable: Variable) -> Tensor:
    bound = limit * ratio
    bound = ops.where(bound < 0, ops.zeros_like(bound), bound)
    return ops.cast(bound, keras.backend.standardize_dtype(variable.dtype))
