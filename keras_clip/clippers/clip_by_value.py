"""Clip every entry of every gradient."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.thresholds import (
    Threshold,
    check_number,
    held_thresholds,
    is_number,
    threshold_from_config,
)
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.layers.paths import path_of
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Tensor, ThresholdValue, Variable

_BOTH = "a number that is at least 0, a schedule, a callable of the step, or a pair (low, high)"


@keras.saving.register_keras_serializable(package="keras_clip")
class ClipByValue(Clipper):
    """Limit each entry to `[-max_value, max_value]`, or to `[low, high]`.

    `clipped = min(max(g, low), high)`

    Changes the direction of the gradient. Infinities become the bounds, NaN stays NaN. Complex
    variables are an error, because complex numbers have no order.

    Args:
        max_value: in units of one entry of a gradient: a number of at least 0, a
            `LearningRateSchedule` or a callable of the step; or a pair `(low, high)` of these,
            where numbers may have any sign. Defaults to 1.0. During training, assign `max_value`,
            or `low` and `high` of a pair.

    Raises:
        TypeError: `max_value` is of another type.
        ValueError: `max_value` is negative or NaN, or `low` is above `high`. When the optimizer
            is built: a variable is complex; the message lists the paths.

    Reference:
        `tf.clip_by_value`, `optax.clip`, torch's `clip_grad_value_`. Repeated rows of
        `tf.IndexedSlices` count as their sum: each row is scaled, so that the sum is in bounds.

    Example:
        >>> import keras_clip
        >>> clipper = keras_clip.ClipByValue((-0.1, 0.5))
        >>> optimizer = keras_clip.ClippedOptimizer("sgd", clipper=clipper)
    """

    high = Threshold(minimum=float("-inf"))
    low = Threshold(minimum=float("-inf"), optional=True)

    def __init__(
        self, max_value: ThresholdValue | tuple[ThresholdValue, ThresholdValue] = 1.0
    ) -> None:
        if isinstance(max_value, list | tuple):
            self.low, self.high = _checked_pair(max_value)
        else:
            self.low, self.high = None, _checked_single(max_value)

    @property
    def max_value(self) -> Any:
        """The bound on both sides, or the pair of bounds."""
        return self.high if self.low is None else (self.low, self.high)

    @max_value.setter
    def max_value(self, value: ThresholdValue) -> None:
        if self.low is not None:
            raise AttributeError(
                "This ClipByValue has two bounds. Assign `low` or `high`. "
                f"Received: max_value={value!r}."
            )
        self.high = _checked_single(value)

    def build(self, variables: Sequence[Variable]) -> None:
        """Raise if a variable is complex."""
        found = [path_of(v) for v in variables if floating_point.is_complex(v)]
        if found:
            raise ValueError(
                "ClipByValue compares entries with its bounds, and complex numbers have no order. "
                f"These variables are complex: {found}. Clip by norm instead, or give them another "
                "clipper in a ClipperMap."
            )

    def clip(self, update: Update) -> list[Gradient]:
        """Limit each entry."""
        high = update.evaluate(self.high)
        low = -high if self.low is None else update.evaluate(self.low)
        return [_limited(gradient, low, high) for gradient in update.gradients]

    def get_config(self) -> dict[str, Any]:
        """Return `max_value`, with a pair as a list."""
        held = held_thresholds(self)
        low, high = held["low"].get_config(), held["high"].get_config()
        return {"max_value": high if low is None else [low, high]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the clipper that `get_config` described."""
        value = config["max_value"]
        if isinstance(value, list | tuple):
            low, high = (threshold_from_config(bound) for bound in value)
            return cls((low, high))
        return cls(threshold_from_config(value))


def _checked_single(value: Any) -> Any:
    return value if callable(value) else check_number("max_value", value, _BOTH)


def _checked_pair(pair: Any) -> Any:
    numbers = [bound for bound in pair if is_number(bound)]
    if len(pair) != 2 or (len(numbers) == 2 and not numbers[0] <= numbers[1]):
        raise ValueError(
            f"max_value must be {_BOTH}, low at most high. Received: max_value={pair!r}."
        )
    if None in pair:
        raise TypeError(f"max_value must be {_BOTH}. Received: max_value={pair!r}.")
    return pair


def _limited(gradient: Gradient, low: Tensor, high: Tensor) -> Gradient:
    if not backend.is_sparse(gradient):
        return backend.map_values(gradient, lambda values: _clamp(values, low, high))
    totals, _ = backend.row_totals(gradient)
    limited = _clamp(totals, low, high)
    return backend.map_values(gradient, lambda values: _share(values, totals, limited))


def _share(values: Tensor, totals: Tensor, limited: Tensor) -> Tensor:
    """Return the share of each of several rows in the limited sum."""
    one = ops.ones_like(totals)
    # A sum of 0 has no shares to scale, so it stays, even if both bounds are above 0.
    factor = ops.where(totals == 0, one, limited / ops.where(totals == 0, one, totals))
    scaled = ops.cast(ops.cast(values, totals.dtype) * factor, values.dtype)
    alone = ops.cast(values, totals.dtype) == totals
    scaled = ops.where(alone, ops.cast(limited, values.dtype), scaled)
    return ops.where(limited == totals, values, scaled)


def _clamp(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    # Compare in the wider of both dtypes: a bound of 1e-8 is 0 in half precision.
    wide = keras.backend.result_type(values.dtype, low.dtype)
    compared = ops.cast(values, wide)
    low, high = ops.cast(low, wide), ops.cast(high, wide)
    limited = ops.where(compared < low, low, ops.where(compared > high, high, compared))
    return ops.cast(limited, values.dtype)
