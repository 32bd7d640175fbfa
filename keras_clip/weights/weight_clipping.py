"""The bound on the distance of weights from zero."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_clip.arguments.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.layers.given_layers import GivenLayers
from keras_clip.layers.paths import path_of
from keras_clip.layers.units import fan_in_by_shape
from keras_clip.types import ThresholdValue, Variable
from keras_clip.weights.rule import Rule


@keras.saving.register_keras_serializable(package="keras_clip")
class WeightClipping(Rule):
    """Project weights to an interval around zero, after each update.

    `w = min(max(w, -bound), bound)`, where `bound = max_weight`, or
    `bound = max_weight / sqrt(fan_in)`

    Pass it to `ClippedOptimizer` as `max_weight`, for all variables or for groups of them. A
    weight within the bound stays bit for bit, and so does a NaN. The projection comes after an
    update and before Keras's moving averages of the weights. Micro-batches of a gradient
    accumulation are not projected.

    Args:
        max_weight: the bound, or its ratio to `1 / sqrt(fan_in)`, at least 0: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 0.01, the bound of
            Wasserstein GANs. You can assign a number at any time.
        scale_by_fan_in: bool, whether the bound shrinks with the fan-in, the number of inputs
            that one output sums over. A bias has the fan-in of its layer's kernel. Gains and the
            rows of embeddings have 1. Defaults to False.
        layers: the trained model, a layer, or a list of them, which know the fan-in of their
            variables. They are read when the optimizer is built, and the config keeps the
            fan-in, not the layers. Without `layers`, the names of many variables tell their
            fan-in. For the others it is the product of all axes but the last, and a warning
            names them. Defaults to None.

    Raises:
        TypeError: `max_weight` is not a number, schedule or callable, `scale_by_fan_in` is not a
            bool, or `layers` are not layers.
        ValueError: `max_weight` is negative or NaN, or `layers` is given without
            `scale_by_fan_in`. When the optimizer is built: `layers` has none of the variables.

    Reference:
        Arjovsky, Chintala, Bottou 2017, arXiv 1701.07875, for the fixed bound. Elsayed, Lan,
        Lyle, Mahmood 2024, arXiv 2407.01704, for the bound by fan-in, where `max_weight` is
        their kappa, 1 to 5. Their code takes the fan-in of a bias from the kernel before it
        and bounds only kernels and biases.

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

    def __init__(
        self,
        max_weight: ThresholdValue = 0.01,
        *,
        scale_by_fan_in: bool = False,
        layers: Any = None,
    ) -> None:
        if not isinstance(scale_by_fan_in, bool):
            raise TypeError(
                "scale_by_fan_in must be True or False. "
                f"Received: scale_by_fan_in={scale_by_fan_in!r}."
            )
        if layers is not None and not scale_by_fan_in:
            raise ValueError(
                "layers tell the fan-in, which only scale_by_fan_in=True uses. "
                f"Received: layers={layers!r}, scale_by_fan_in=False."
            )
        self.max_weight = max_weight
        self._layers = GivenLayers(layers)
        self.scale_by_fan_in = scale_by_fan_in

    def ratios(self, own: Sequence[Variable], variables: Sequence[Variable]) -> list[float]:
        """Return the ratio of the bound to `max_weight`, for each variable that it bounds.

        Args:
            own: the variables it bounds.
            variables: all variables of the optimizer.
        """
        if not self.scale_by_fan_in:
            return [1.0] * len(own)
        units = self._layers.units_of(variables)
        fan_ins = {id(v): known.fan_in for v, known in zip(variables, units, strict=True)}
        guessed = {path_of(v): fan_in_by_shape(v.shape) for v in own if fan_ins[id(v)] is None}
        if guessed:
            _warn_of_guesses(guessed)
        found = [fan_ins[id(v)] or fan_in_by_shape(v.shape) for v in own]
        # An empty variable has no fan-in.
        return [1.0 / math.sqrt(max(fan_in, 1)) for fan_in in found]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the current `max_weight`."""
        held = held_thresholds(self)["max_weight"]
        return {
            "max_weight": held.get_config(),
            "scale_by_fan_in": self.scale_by_fan_in,
            "layers": self._layers.get_config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightClipping":
        """Return the `WeightClipping` that `get_config` described."""
        return cls(**{**config, "max_weight": threshold_from_config(config["max_weight"])})


def _warn_of_guesses(guessed: Mapping[str, int]) -> None:
    warnings.warn(
        f"WeightClipping does not know the fan-in of {len(guessed)} variables, as their names do "
        "not tell which layers they belong to. It takes the product of all axes but the last: "
        f"{dict(guessed)}. Pass WeightClipping(scale_by_fan_in=True, layers=model) to go by the "
        "layers. For a layer that is not one of Keras, give its variables a bound without "
        "scale_by_fan_in, by max_weight={path: bound, 'default': WeightClipping(...)}.",
        stacklevel=2,
    )
