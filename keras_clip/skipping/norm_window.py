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

    Args:
        rule: the rule.
        wrapper: the optimizer that owns the variables.
        dtype: str, dtype of the norms.
    """

    NAMES: ClassVar[tuple[str, str, str]] = ("log_norms", "log_norms_count", "outliers_in_a_row")

    def __init__(self, rule: Outliers, wrapper: Any, dtype: str) -> None:
        self._rule = rule
        self._dtype = dtype

        def add(shape: tuple[int, ...], kind: str, name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype=kind, aggregation="only_first_replica", name=name
            )

        latest, count, in_a_row = self.NAMES
        self._latest = add((rule.window,), dtype, latest)
        self._count = add((), "int32", count)
        self._in_a_row = add((), "int32", in_a_row)

    def is_outlier(self, value: Tensor) -> Tensor:
        """Return whether a value is NaN, infinite, or above the limit of the latest ones."""
        count = self._count.value
        size = ops.zeros_like(count) + self._rule.window
        held = ops.cast(backend.where(count < size, count, size), self._dtype)
        mean, deviation = self._moments(held)
        floor = self._least_deviation(mean)
        spread = self._rule.multiple * backend.where(deviation > floor, deviation, floor)
        above = ops.logical_and(self._number(value) > mean + spread, count >= self._rule.warm_up)
        above = ops.logical_and(above, self._is_compared(value))
        return ops.logical_or(above, ops.logical_not(ops.isfinite(value)))

    def _moments(self, held: Tensor) -> tuple[Tensor, Tensor]:
        latest = self._latest.value
        places = backend.constant(np.arange(self._rule.window, dtype=self._dtype), like=latest)
        is_held, zero = places < held, ops.zeros_like(latest)
        # Divisors of at least 1, because NaN debuggers stop at 0 / 0.
        one = ops.ones_like(held)
        mean = ops.sum(backend.where(is_held, latest, zero)) / backend.where(held > 1, held, one)
        squares = ops.sum(backend.where(is_held, ops.square(latest - mean), zero))
        return mean, ops.sqrt(squares / backend.where(held > 2, held - 1, one))

    def _number(self, value: Tensor) -> Tensor:
        """Return the number to compare: the logarithm, and 0 for a norm without one."""
        norm = ops.cast(value, self._dtype)
        has_one = ops.logical_and(ops.isfinite(norm), norm > 0)
        return ops.log(backend.where(has_one, norm, ops.ones_like(norm)))

    def _least_deviation(self, mean: Tensor) -> Tensor:
        return ops.zeros_like(mean) + LEAST_DEVIATION

    def _is_compared(self, value: Tensor) -> Tensor:
        # The logarithm of 0 counts as 0, which may be far above those of small norms.
        return value > 0

    def _teaches(self, value: Tensor) -> Tensor:
        return ops.logical_and(floating_point.is_in_range(value), value > 0)

    def learn(self, value: Tensor, skip: Tensor, is_finite: Tensor) -> None:
        """Add the value of an applied update, and count outliers in a row.

        Args:
            value: the norm or loss.
            skip: whether the update is skipped.
            is_finite: whether the norm, and the loss if it is compared, are finite.
        """
        window, count = self._rule.window, self._count.value
        learns = ops.logical_and(ops.logical_not(skip), self._teaches(value))
        place = count % window
        oldest = ops.take(self._latest.value, place)
        kept = backend.where(learns, self._number(value), oldest)
        backend.write_row(self._latest, place, kept)
        in_a_row = self._in_a_row.value + ops.cast(is_finite, "int32")
        in_a_row = backend.where(skip, in_a_row, ops.zeros_like(in_a_row))
        forgets = in_a_row >= window
        count = count + ops.cast(learns, "int32")
        self._count.assign(backend.where(forgets, ops.zeros_like(count), count))
        self._in_a_row.assign(backend.where(forgets, ops.zeros_like(in_a_row), in_a_row))


class LossWindow(NormWindow):
    """The losses of an `Outliers` rule, which may be negative."""

    NAMES = ("losses", "losses_count", "loss_outliers_in_a_row")

    def _number(self, value: Tensor) -> Tensor:
        loss = ops.cast(value, self._dtype)
        return backend.where(ops.isfinite(loss), loss, ops.zeros_like(loss))

    def _least_deviation(self, mean: Tensor) -> Tensor:
        # Losses of exactly 0 have no scale: nothing is compared with them.
        unlimited = ops.zeros_like(mean) + math.inf
        return backend.where(mean == 0, unlimited, LEAST_DEVIATION * ops.absolute(mean))

    def _is_compared(self, value: Tensor) -> Tensor:
        return ops.isfinite(value)

    def _teaches(self, value: Tensor) -> Tensor:
        return ops.isfinite(value)
