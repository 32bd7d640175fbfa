"""The latest applied norms or losses, kept on the device, and the outliers among new ones."""

import math
from typing import Any, ClassVar

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms import floating_point
from keras_clip.skipping.outliers import LEAST_DEVIATION, Outliers
from keras_clip.types import Tensor, Variable


class NormWindow:
    """The norms of an `Outliers` rule: a ring of logarithms, because squares would overflow.

    On torch each operation is a call of its own, and a function of `keras.ops` takes several
    times as long as an operator or `backend.where`.

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
        """Return whether a finite value is above the limit of the latest ones."""
        number, has_number = self._number(value)
        is_compared = has_number & (self._count.value >= self._rule.warm_up)
        return is_compared & (number > self._limit())

    def _limit(self) -> Tensor:
        """Return `mean + multiple * deviation`, which is not used before the warm-up."""
        count, latest = self._count.value, self._latest.value
        held = backend.where(count < self._rule.window, count, self._rule.window)
        is_held = backend.constant(self._places, like=latest) < held
        # Divisors above 0 before the warm-up, because NaN debuggers stop at 0 / 0.
        held = ops.cast(backend.where(held < 2, 2, held), latest.dtype)
        mean = ops.sum(backend.where(is_held, latest, 0.0)) / held
        centered = backend.where(is_held, latest - mean, 0.0)
        deviation = ops.sqrt(ops.sum(centered * centered) / (held - 1.0))
        floor = self._least_deviation(mean)
        return mean + self._rule.multiple * backend.where(deviation > floor, deviation, floor)

    def _number(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number to compare, and whether the value has one."""
        # The logarithm of 0 counts as 0, which may be far above those of small norms.
        is_above_0 = value > 0.0
        return ops.log(backend.where(is_above_0, value, 1.0)), is_above_0

    def _least_deviation(self, mean: Tensor) -> Tensor:
        del mean
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
        forgets = in_a_row >= window
        self._count.assign(backend.where(forgets, 0, backend.where(learns, count + 1, count)))
        self._in_a_row.assign(backend.where(forgets, 0, in_a_row))


class LossWindow(NormWindow):
    """The losses of an `Outliers` rule, which may be negative."""

    NAMES = ("losses", "losses_count", "loss_outliers_in_a_row")

    def _number(self, value: Tensor) -> tuple[Tensor, Tensor]:
        is_finite = ops.isfinite(value)
        return backend.where(is_finite, value, 0.0), is_finite

    def _least_deviation(self, mean: Tensor) -> Tensor:
        # Losses of exactly 0 have no scale: nothing is compared with them.
        return backend.where(mean == 0.0, math.inf, LEAST_DEVIATION * ops.absolute(mean))
