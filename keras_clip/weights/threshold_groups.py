"""One threshold for all variables, or one for each group of paths."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip.arguments.thresholds import held_thresholds, threshold_from_config
from keras_clip.layers.paths import PathPatterns
from keras_clip.types import Tensor, Variable

_DEFAULT = "default"


class ThresholdGroups:
    """The argument `max_weight` or `max_update_ratio` of a `ClippedOptimizer`, in one form.

    Args:
        argument: name of the argument, and of the `Threshold` of a `rule`.
        rule: class of the rule, such as `WeightClipping`.
        given: number, schedule, callable of the step or a `rule`, for all variables; a dict of
            path patterns to any of these or None, where the key "default" stands for the
            variables that no pattern matches; or None.

    Raises:
        TypeError: `given` has another type, or a pattern is not a str.
        ValueError: a number is negative or NaN, the dict is empty, a pattern is not a regular
            expression, or one rule is given twice or to a second optimizer.
    """

    def __init__(self, argument: str, rule: Callable[[Any], Any], given: Any) -> None:
        self._argument = argument
        self._rule = rule
        self.has_patterns = isinstance(given, Mapping)
        by_key = dict(given) if self.has_patterns else {_DEFAULT: given}
        if not by_key:
            raise ValueError(
                f"{argument}={{}} limits no variable. Give path patterns with a number each, or "
                "None."
            )
        self._patterns = PathPatterns(argument, [key for key in by_key if key != _DEFAULT])
        self.rules = {key: self._as_rule(value) for key, value in by_key.items()}
        self._check_distinct()
        self.variables: list[Variable] = []
        self._dtype = "float32"

    def _as_rule(self, value: Any) -> Any:
        if value is None or isinstance(value, self._rule):  # type: ignore[arg-type]
            return value
        if isinstance(value, str | Mapping) or not (callable(value) or np.isscalar(value)):
            raise TypeError(
                f"{self._argument} must be a number that is at least 0, a LearningRateSchedule, a "
                f"callable of the step, a keras_clip.{self._rule.__name__}, or a dict of path "
                f"patterns to these. Received: {self._argument}={value!r}."
            )
        return self._rule(value)

    def _check_distinct(self) -> None:
        given = self._given_rules()
        if len(set(map(id, given))) < len(given):
            name = self._rule.__name__
            raise ValueError(
                f"{self._argument} has one {name} for two groups. Make one for each: its "
                f"{self._argument} is a variable of its own."
            )
        for rule in given:
            rule.check_unclaimed()

    def _given_rules(self) -> list[Any]:
        return [rule for rule in self.rules.values() if rule is not None]

    def claim(self, owner: str) -> None:
        """Store the optimizer that the thresholds belong to."""
        for rule in self._given_rules():
            rule.claim(owner)

    def build(self, variables: Sequence[Variable], dtype: str) -> None:
        """Create the variables of the thresholds and assign each variable its group."""
        self._patterns.build(variables)
        self.variables = []
        self._dtype = dtype
        for position, rule in enumerate(self.rules.values()):
            if rule is not None:
                held_thresholds(rule)[self._argument].build(self._maker(position, dtype))

    def _maker(self, position: int, dtype: str) -> "_VariableMaker":
        # `max_weight` makes `weight_group_0_max_weight`.
        kind = self._argument.split("_")[1]
        prefix = f"{kind}_group_{position}_" if self.has_patterns else ""
        return _VariableMaker(self.variables, prefix, dtype)

    def members(self, key: str, variables: Sequence[Variable]) -> list[int]:
        """Return the positions of the variables in the group of a key."""
        keys = [self._patterns.of(variable) or _DEFAULT for variable in variables]
        return [position for position, own in enumerate(keys) if own == key]

    def check_patterns(self) -> None:
        """Raise ValueError if a pattern matches no variable."""
        self._patterns.check_all_used()

    def threshold(self, rule: Any, step: Tensor) -> Tensor:
        """Return the threshold of a rule at a step: a scalar tensor of at least 0."""
        threshold = getattr(rule, self._argument)
        if isinstance(threshold, keras.Variable):
            return threshold.value
        number = ops.convert_to_tensor(threshold(step), dtype=self._dtype)
        return ops.where(number < 0, ops.zeros_like(number), number)

    @property
    def value(self) -> Any:
        """The threshold of all variables, or the groups by their patterns."""
        if self.has_patterns:
            return dict(self.rules)
        rule = self.rules[_DEFAULT]
        return None if rule is None else getattr(rule, self._argument)

    def assign(self, value: Any) -> None:
        """Set another threshold for all variables."""
        name, rule = self._argument, self.rules.get(_DEFAULT)
        if self.has_patterns or rule is None:
            raise AttributeError(
                f"{name} can be assigned where it was given as one number for all variables. "
                f"Received: {name}={value!r}. Of a dict, assign to the rule of a group: "
                f"optimizer.{name}['pattern'].{name} = 0.1; of None, make a new optimizer."
            )
        setattr(rule, name, value)

    def __bool__(self) -> bool:
        return bool(self._given_rules())

    def get_config(self) -> Any:
        """Return the argument in serialized form."""
        serialized = {
            key: keras.saving.serialize_keras_object(rule) for key, rule in self.rules.items()
        }
        return serialized if self.has_patterns else serialized[_DEFAULT]


def groups_from_config(config: Any, custom_objects: Any = None) -> Any:
    """Return the argument that `ThresholdGroups.get_config` wrote."""
    if not isinstance(config, Mapping):
        return threshold_from_config(config, custom_objects)
    if "class_name" in config:
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
    return {key: groups_from_config(value, custom_objects) for key, value in config.items()}


class _VariableMaker:
    """Creates the variables of thresholds, each under its own name."""

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
