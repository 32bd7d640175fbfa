"""The bound of each trained variable."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_clip.types import Tensor, Variable
from keras_clip.weights.threshold_groups import ThresholdGroups
from keras_clip.weights.weight_clipping import WeightClipping


class WeightGroups(ThresholdGroups):
    """The bounds of `max_weight`; see `ThresholdGroups`."""

    def __init__(self, max_weight: Any) -> None:
        super().__init__("max_weight", WeightClipping, max_weight)
        self._ratios: dict[int, tuple[WeightClipping, float]] = {}

    def build(self, variables: Sequence[Variable], dtype: str) -> None:
        """Create the variables of the thresholds and find the ratio of each bound to them."""
        super().build(variables, dtype)
        self._ratios = {}
        for key, rule in self.rules.items():
            if rule is None:
                continue
            own = [variables[position] for position in self.members(key, variables)]
            for variable, ratio in zip(own, rule.ratios(own, variables), strict=True):
                self._ratios[id(variable)] = rule, ratio

    def bounds(self, variables: Sequence[Variable], step: Tensor) -> list[tuple[Variable, Tensor]]:
        """Return the variables with a bound, each with its bound, a scalar tensor."""
        grouped = [(v, *self._ratios[id(v)]) for v in variables if id(v) in self._ratios]
        limits = {id(rule): self.threshold(rule, step) for _, rule, _ in grouped}
        return [
            (variable, _bound(limits[id(rule)], ratio, variable))
            for variable, rule, ratio in grouped
        ]


def _bound(limit: Tensor, ratio: float, variable: Variable) -> Tensor:
    return ops.cast(limit * ratio, keras.backend.standardize_dtype(variable.dtype))
