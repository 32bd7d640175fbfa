"""Clipping by the norm of all gradients together."""

from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_clip.arithmetic import scale_to_norm
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.thresholds import Threshold
from keras_clip.types import Gradient, ThresholdValue, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class ClipByGlobalNorm(Clipper):
    """Scale all gradients by one factor, so that their global norm is at most `max_norm`.

    `clipped_i = g_i * min(1, max_norm / global_norm(g))`

    The direction of the joint gradient never changes. At or below the threshold gradients
    pass bit for bit.

    Args:
        max_norm: threshold in units of the gradients' norm, at least 0: a number, a
            `LearningRateSchedule` or a callable of the step (the number of updates applied
            so far). Defaults to 1.0. 0 makes every gradient zero; `float("inf")` observes:
            the norm is reported and gradients pass untouched. A function of the step that
            returns a negative value counts as 0. A number can be reassigned at any time.

    Raises:
        TypeError: `max_norm` is no number, schedule or callable.
        ValueError: `max_norm` is negative or NaN.

    Reference:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063; see `keras_clip.clip_by_global_norm`
        for how the arithmetic differs from TensorFlow's and torch's.

    Example:
        >>> import keras, keras_clip
        >>> halved = keras.optimizers.schedules.ExponentialDecay(4.0, 1000, 0.5)
        >>> clipper = keras_clip.ClipByGlobalNorm(max_norm=halved)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    def __init__(self, max_norm: ThresholdValue = 1.0) -> None:
        self._max_norm = Threshold("max_norm", max_norm)

    @property
    def max_norm(self) -> Any:
        """The threshold: a scalar variable (a float before it is built), or the function."""
        return self._max_norm.value

    @max_norm.setter
    def max_norm(self, value: ThresholdValue) -> None:
        self._max_norm.assign(value)

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the variable of the threshold."""
        self._max_norm.build(self)

    def clip(self, update: Update) -> list[Gradient]:
        """Scale by `max_norm / global_norm` where the norm is above the threshold."""
        threshold = self._max_norm.at(update.step)
        return scale_to_norm(update.gradients, update.global_norm, threshold)

    def get_config(self) -> dict[str, Any]:
        """Return `max_norm` as it stands now."""
        return {"max_norm": self._max_norm.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the clipper that `get_config` described."""
        return cls(Threshold.from_config(config["max_norm"]))
