"""The latest applied norms or losses, kept on the device, and the outliers among new ones."""

from typing import Any, ClassVar

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms import floating_point
from keras_clip.skipping.outliers import LEAST_DEVIATION, Outliers
from keras_clip.types import Tensor, Variable

# On torch each operation is a call of its own, and a function of `keras.ops` takes several times as
# long as an operator or `backend.where`.


class NormWindow:
    """The norms of an `Outliers` rule: a ring of logarithms, because squares would overflow.

    Args:
        rule: the rule.
        wrapper: the optimizer that owns the variables.
        dtype: str, dtype of the norms.
    """

    NAMES: ClassVar[tuple[str, str, str]] = ("log_norms", "log_norms_count", "outliers_in_a_row")

    def __init__(self, rule: Outliers, wrapper: Any, dtype: str) -> None:
        self._rule = rule

        def add(shape: tuple[int, ...], kind: str, name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype=kind, aggregation="only_first_replica", name=name
            )

        latest, count, in_a_row = self.NAMES
        self._latest = add((rule.window,), dtype, latest)
        self._count = add((), "int32", count)
        self._in_a_row = add((), "int32", in_a_row)
        self._places = np.arange(rule.window, dtype="int32")

    def is_outlier(self, value: Tensor) -> Tensor:
        """Return whether a value is above the limit of the latest ones; false for NaN."""
        number, has_number = self._number(value)
        mean, deviation = self._moments()
        floor = self._least_deviation(mean)
        spread = self._rule.multiple * backend.where(deviation > floor, deviation, floor)
        # Losses that are all 0 have no scale: nothing is compared with them.
        is_compared = has_number & (self._count.value >= self._rule.warm_up) & (spread > 0.0)
        return is_compared & (number > mean + spread)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the latest numbers; they mean nothing before two."""
        count, latest = self._count.value, self._latest.value
        held = backend.where(count < self._rule.window, count, self._rule.window)
        is_held = backend.constant(self._places, like=latest) < held
        # Divisors above 0, because NaN debuggers stop at 0 / 0.
        held = ops.cast(backend.where(held > 2, held, 2), latest.dtype)
        mean = ops.sum(backend.where(is_held, latest, 0.0)) / held
        centered = backend.where(is_held, latest - mean, 0.0)
        return mean, ops.sqrt(ops.sum(centered * centered) / (held - 1.0))

    def _number(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number to compare, and whether the value has one."""
        # The logarithm of 0 counts as 0, which may be far above those of small norms.
        is_above_0 = value > 0.0
        return ops.log(backend.where(is_above_0, value, 1.0)), is_above_0

    def _least_deviation(self, _mean: Tensor) -> Any:
        return LEAST_DEVIATION

    def learn(self, value: Tensor, skip: Tensor, is_finite: Tensor) -> None:
        """Add the value of an applied update, and count outliers in a row.

        Args:
            value: the norm or loss.
            skip: whether the update is skipped.
            is_finite: whether the norm, and the loss if it is compared, are finite.
        """
        window, count, in_a_row = self._rule.window, self._count.value, self._in_a_row.value
        number, has_number = self._number(value)
        learns = has_number & floating_point.is_in_range(value) & ~skip
        is_place = backend.constant(self._places, like=count) == count % window
        self._latest.assign(backend.where(is_place & learns, number, self._latest.value))
        in_a_row = backend.where(is_finite, in_a_row + 1, in_a_row)
        in_a_row = backend.where(skip, in_a_row, 0)
        keeps = in_a_row < window
        self._count.assign(backend.where(keeps, backend.where(learns, count + 1, count), 0))
        self._in_a_row.assign(backend.where(keeps, in_a_row, 0))


class LossWindow(NormWindow):
    """The losses of an `Outliers` rule, which may be negative."""

    NAMES = ("losses", "losses_count", "loss_outliers_in_a_row")

    def _number(self, value: Tensor) -> tuple[Tensor, Tensor]:
        is_finite = ops.isfinite(value)
        return backend.where(is_finite, value, 0.0), is_finite

    def _least_deviation(self, mean: Tensor) -> Any:
        return LEAST_DEVIATION * ops.absolute(mean)
