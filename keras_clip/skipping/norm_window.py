"""The latest applied norms, kept on the device, and the outliers among new ones."""

from typing import Any

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.norms import floating_point
from keras_clip.skipping.outliers import LEAST_DEVIATION, Outliers
from keras_clip.types import Tensor, Variable


class NormWindow:
    """The state of an `Outliers` rule: a ring of logarithms, because squares would overflow.

    Args:
        rule: the rule.
        wrapper: the optimizer that owns the variables.
        dtype: str, dtype of the norms.
    """

    def __init__(self, rule: Outliers, wrapper: Any, dtype: str) -> None:
        self._rule = rule
        self._dtype = dtype

        def add(shape: tuple[int, ...], kind: str, name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype=kind, aggregation="only_first_replica", name=name
            )

        self._logs = add((rule.window,), dtype, "log_norms")
        self._count = add((), "int32", "log_norms_count")
        self._in_a_row = add((), "int32", "outliers_in_a_row")

    def is_outlier(self, norm: Tensor) -> Tensor:
        """Return whether a norm is NaN, infinite, or above the limit of the latest norms."""
        count = self._count.value
        size = ops.zeros_like(count) + self._rule.window
        held = ops.cast(backend.where(count < size, count, size), self._dtype)
        mean, deviation = self._moments(held)
        floor = ops.zeros_like(deviation) + LEAST_DEVIATION
        spread = self._rule.multiple * backend.where(deviation > floor, deviation, floor)
        above = ops.logical_and(self._logarithm(norm) > mean + spread, count >= self._rule.warm_up)
        # The logarithm of 0 counts as 0, which may be far above those of small norms.
        above = ops.logical_and(above, norm > 0)
        return ops.logical_or(above, ops.logical_not(ops.isfinite(norm)))

    def _moments(self, held: Tensor) -> tuple[Tensor, Tensor]:
        logs = self._logs.value
        places = backend.constant(np.arange(self._rule.window, dtype=self._dtype), like=logs)
        is_held, zero = places < held, ops.zeros_like(logs)
        # Divisors of at least 1, because NaN debuggers stop at 0 / 0.
        one = ops.ones_like(held)
        mean = ops.sum(backend.where(is_held, logs, zero)) / backend.where(held > 1, held, one)
        squares = ops.sum(backend.where(is_held, ops.square(logs - mean), zero))
        return mean, ops.sqrt(squares / backend.where(held > 2, held - 1, one))

    def _logarithm(self, norm: Tensor) -> Tensor:
        """Return the logarithm, and 0 for a norm without one."""
        norm = ops.cast(norm, self._dtype)
        has_one = ops.logical_and(ops.isfinite(norm), norm > 0)
        return ops.log(backend.where(has_one, norm, ops.ones_like(norm)))

    def learn(self, norm: Tensor, skip: Tensor) -> None:
        """Add the norm of an applied update, and count outliers in a row."""
        window, count = self._rule.window, self._count.value
        teaches = ops.logical_and(floating_point.is_in_range(norm), norm > 0)
        learns = ops.logical_and(ops.logical_not(skip), teaches)
        place = count % window
        oldest = ops.take(self._logs.value, place)
        kept = backend.where(learns, self._logarithm(norm), oldest)
        backend.write_row(self._logs, place, kept)
        in_a_row = self._in_a_row.value + ops.cast(ops.isfinite(norm), "int32")
        in_a_row = backend.where(skip, in_a_row, ops.zeros_like(in_a_row))
        forgets = in_a_row >= window
        count = count + ops.cast(learns, "int32")
        self._count.assign(backend.where(forgets, ops.zeros_like(count), count))
        self._in_a_row.assign(backend.where(forgets, ops.zeros_like(in_a_row), in_a_row))
