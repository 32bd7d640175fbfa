"""Clip by the norm of all gradients together."""

from typing import Any, Self

import keras

from keras_clip.arguments.thresholds import (
    Threshold,
    check_number,
    number_to_config,
    threshold_from_config,
)
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.types import Tensor, ThresholdValue


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
            the norm is reported and gradients pass untouched. A negative value of a function
            counts as 0. You can assign a number at any time.
        norm_type: float, the p of the p-norm, `(sum |x| ** p) ** (1 / p)` over all entries,
            at least 1; `float("inf")` is the largest entry. Defaults to 2, the Euclidean norm.
            The optimizer's `grad_norm` is always the Euclidean norm.

    Raises:
        TypeError: `max_norm` is not a number, schedule or callable, or `norm_type` is not a
            number.
        ValueError: `max_norm` is negative or NaN, or `norm_type` is below 1.

    Reference:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063; see `keras_clip.clip_by_global_norm`
        for the differences to TensorFlow's and torch's arithmetic. `norm_type` is that of torch's
        `clip_grad_norm_`, which also accepts p below 1, which is not a norm.

    Example:
        >>> import keras, keras_clip
        >>> halved = keras.optimizers.schedules.ExponentialDecay(4.0, 1000, 0.5)
        >>> clipper = keras_clip.ClipByGlobalNorm(max_norm=halved)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    _is_done_with_gradients = True
    max_norm = Threshold(note=" (float('inf') observes without clipping)")

    def __init__(self, max_norm: ThresholdValue = 1.0, norm_type: float = 2.0) -> None:
        self.max_norm = max_norm
        self.norm_type = check_number(
            "norm_type", norm_type, "a number that is at least 1, or float('inf')", minimum=1.0
        )

    def clip(self, update: Update) -> Clipped:
        """Scale by `max_norm / norm` if the norm is above the threshold."""
        return update.scaled_to_norm(update.evaluate(self.max_norm), self.norm_type)

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return the norm and `max_norm`."""
        return update.p_norm(self.norm_type), update.evaluate(self.max_norm)

    def get_config(self) -> dict[str, Any]:
        """Return the current `max_norm`, and `norm_type`."""
        return {**super().get_config(), "norm_type": number_to_config(self.norm_type)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the clipper that `get_config` described."""
        norm_type = threshold_from_config(config.get("norm_type", 2.0))
        return super().from_config({**config, "norm_type": norm_type})
