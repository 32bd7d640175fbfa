"""How far one update may move weights."""

from typing import Any

import keras

from keras_clip.arguments.hyperparameters import check_finite, check_flag
from keras_clip.arguments.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.types import ThresholdValue
from keras_clip.weights.rule import Rule


@keras.saving.register_keras_serializable(package="keras_clip")
class UpdateClipping(Rule):
    """Limit the norm of an update to a share of the norm of the weights.

    `change = change * min(1, limit / norm(change))`, where
    `limit = max_update_ratio * max(norm(weights), minimum_rms * sqrt(number of weights))`

    `change` is the difference that the wrapped optimizer has made to the weights in one update,
    decoupled weight decay included, and `weights` are those before it. Given to
    `ClippedOptimizer` as its `max_update_ratio`, for all variables that it trains or for groups
    of them. The limit comes before `max_weight`, Keras's moving averages and constraints.
    Micro-batches of a gradient accumulation are no updates. An update within the limit stays as
    it is, bit for bit, and so does one that is NaN or infinite.

    Args:
        max_update_ratio: the largest share, at least 0, without a unit: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 0.003. Infinity limits
            nothing and records the share. A number can be reassigned at any time.
        per_variable: bool, whether each variable has a norm and a limit of its own. Defaults to
            False: all variables of the group together have one.
        minimum_rms: float of at least 0: the norm of the weights counts at least as much as if
            the root of their mean square were this. Weights that are all 0 can move so. Defaults
            to 0.01.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a number is negative or NaN.

    Reference:
        You, Gitman, Ginsburg 2017, arXiv 1708.03888 (LARS) tie the norm of a step to the norm of
        the weights, layer by layer; there the step always has that norm, here it has at most that
        norm. `minimum_rms` is the second epsilon of Shazeer, Stern 2018, arXiv 1804.04235
        (Adafactor), with ten times its default.

    Example:
        >>> import keras_clip
        >>> optimizer = keras_clip.ClippedOptimizer("adam", max_update_ratio=0.003)
        >>> each = keras_clip.UpdateClipping(0.003, per_variable=True)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", max_update_ratio=each)
        >>> optimizer.max_update_ratio = 0.001
        >>> each.max_update_ratio
        0.001
    """

    max_update_ratio = Threshold()

    def __init__(
        self,
        max_update_ratio: ThresholdValue = 0.003,
        *,
        per_variable: bool = False,
        minimum_rms: float = 0.01,
    ) -> None:
        self.max_update_ratio = max_update_ratio
        self.per_variable = check_flag("per_variable", per_variable)
        self.minimum_rms = check_finite("minimum_rms", minimum_rms)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, `max_update_ratio` as it stands now."""
        return {
            "max_update_ratio": held_thresholds(self)["max_update_ratio"].get_config(),
            "per_variable": self.per_variable,
            "minimum_rms": self.minimum_rms,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "UpdateClipping":
        """Return the object of a config from `get_config`."""
        ratio = threshold_from_config(config["max_update_ratio"])
        return cls(**{**config, "max_update_ratio": ratio})
