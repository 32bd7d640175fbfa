"""The three limits of an optimizer, which can be read and assigned during training."""

from typing import Any

from keras_clip.clippers import Clipper
from keras_clip.types import ThresholdValue
from keras_clip.weights.update_groups import UpdateGroups
from keras_clip.weights.weight_groups import WeightGroups


class Limits:
    """The limits of `ClippedOptimizer`: of the gradient, of the step, and of the weights.

    An assigned number takes effect at the next update, also in a compiled step.
    """

    clipper: Clipper
    _update_groups: UpdateGroups
    _weight_groups: WeightGroups

    @property
    def max_norm(self) -> Any:
        """The clipper's `max_norm`: a scalar variable, or a function of the step."""
        return self.clipper.max_norm  # type: ignore[attr-defined]

    @max_norm.setter
    def max_norm(self, value: ThresholdValue) -> None:
        if not hasattr(type(self.clipper), "max_norm"):
            raise AttributeError(
                f"The clipper {type(self.clipper).__name__} has no max_norm to assign "
                f"{value!r} to. Its own attributes are on optimizer.clipper."
            )
        self.clipper.max_norm = value  # type: ignore[attr-defined]

    @property
    def max_update_ratio(self) -> Any:
        """The limit of the step: a scalar variable, a function of the step, or None.

        If a dict of limits was given, it is the dict. Assign to `max_update_ratio` of each
        `UpdateClipping` in it.
        """
        return self._update_groups.value

    @max_update_ratio.setter
    def max_update_ratio(self, value: ThresholdValue) -> None:
        self._update_groups.assign(value)

    @property
    def max_weight(self) -> Any:
        """The bound of all weights: a scalar variable, a function of the step, or None.

        If a dict of bounds was given, it is the dict. Assign to `max_weight` of each
        `WeightClipping` in it.
        """
        return self._weight_groups.value

    @max_weight.setter
    def max_weight(self, value: ThresholdValue) -> None:
        self._weight_groups.assign(value)
