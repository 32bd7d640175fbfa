"""How far weights may be from zero."""

from typing import Any

import keras

from keras_clip.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.types import ThresholdValue


@keras.saving.register_keras_serializable(package="keras_clip")
class WeightClipping:
    """Project weights to an interval around zero, after each update.

    `w = min(max(w, -bound), bound)`, where `bound = max_weight`, or
    `bound = max_weight / sqrt(fan_in)`

    Given to `ClippedOptimizer` as its `max_weight`, for all variables that it trains or for
    groups of them. A weight within the bound stays as it is, bit for bit, and so does a NaN.
    The projection comes after an update and before Keras's moving averages of the weights;
    micro-batches of a gradient accumulation are no updates.

    Args:
        max_weight: the bound, or its ratio to `1 / sqrt(fan_in)`, at least 0: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 0.01, that of
            Wasserstein GANs. A number can be reassigned at any time.
        scale_by_fan_in: bool, whether the bound shrinks with the number of inputs that one
            output of the layer is a sum over. A bias has that of its layer's kernel; gains, and
            the rows of embeddings, have 1. Defaults to False.

    Raises:
        TypeError: `max_weight` is no number, schedule or callable, or `scale_by_fan_in` no
            bool.
        ValueError: `max_weight` is negative or NaN.

    Reference:
        Arjovsky, Chintala, Bottou 2017, arXiv 1701.07875, for the fixed bound. Elsayed, Lan,
        Lyle, Mahmood 2024, arXiv 2407.01704, for the one by fan-in, where `max_weight` is
        their kappa, 1 to 5. Their code takes the fan-in of a bias from the kernel before it
        and knows no other variables.

    Example:
        >>> import keras_clip
        >>> optimizer = keras_clip.ClippedOptimizer("adam", max_norm=1.0, max_weight=0.01)
        >>> within = keras_clip.WeightClipping(3.0, scale_by_fan_in=True)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", max_weight=within)
        >>> optimizer.max_weight = 2.0
        >>> within.max_weight
        2.0
    """

    max_weight = Threshold()
    _owner: str | None = None

    def __init__(self, max_weight: ThresholdValue = 0.01, *, scale_by_fan_in: bool = False) -> None:
        if not isinstance(scale_by_fan_in, bool):
            raise TypeError(
                "scale_by_fan_in must be True or False. "
                f"Received: scale_by_fan_in={scale_by_fan_in!r}."
            )
        self.max_weight = max_weight
        self.scale_by_fan_in = scale_by_fan_in

    def claim(self, owner: str) -> None:
        """Note the optimizer it belongs to. Called by `ClippedOptimizer`."""
        self.check_unclaimed()
        self._owner = owner

    def check_unclaimed(self) -> None:
        """Raise if another optimizer has it, whose threshold it would share."""
        if self._owner is not None:
            raise ValueError(
                f"This WeightClipping belongs to the optimizer {self._owner!r} already. Make a "
                "new one for each optimizer."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, `max_weight` as it stands now."""
        held = held_thresholds(self)["max_weight"]
        return {"max_weight": held.get_config(), "scale_by_fan_in": self.scale_by_fan_in}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightClipping":
        """Make what `get_config` described."""
        return cls(**{**config, "max_weight": threshold_from_config(config["max_weight"])})
