"""The state of an `Outliers` rule: what it has learned of norms and losses."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_clip.norms.floating_point import as_dtype
from keras_clip.skipping.norm_window import LossWindow, NormWindow
from keras_clip.skipping.outliers import Outliers
from keras_clip.types import Tensor, Variable


class OutlierState:
    """The windows of the rule, and the losses of an unfinished accumulation.

    Args:
        rule: the rule.
        wrapper: the optimizer that owns the variables.
        dtype: str, dtype of the norms and losses.
    """

    def __init__(self, rule: Outliers, wrapper: Any, dtype: str) -> None:
        self._norms = NormWindow(rule, wrapper, dtype) if rule.reads_norm else None
        self._losses = LossWindow(rule, wrapper, dtype) if rule.reads_loss else None
        self._dtype = dtype
        self._loss_sum: Variable | None = None
        if rule.reads_loss:
            self._loss_sum = wrapper.add_variable(
                (), dtype=dtype, aggregation="only_first_replica", name="accumulated_loss"
            )

    def accumulate(self, losses: Sequence[Tensor]) -> None:
        """Add the loss of a micro-batch."""
        if self._loss_sum is not None:
            self._loss_sum.assign(self._loss_sum + ops.cast(losses[0], self._dtype))

    def skips(self, norm: Tensor, losses: Sequence[Tensor], batches: int) -> Tensor:
        """Return whether to skip an update, and learn from it if not.

        Args:
            norm: global norm before clipping.
            losses: the loss of its last batch, or none if no loss is compared.
            batches: number of batches of an update.
        """
        norm = as_dtype(norm, self._dtype)
        compared: list[tuple[NormWindow, Tensor]] = (
            [] if self._norms is None else [(self._norms, norm)]
        )
        is_finite = ops.isfinite(norm)
        if self._losses is not None:
            loss = self._mean(losses[0], batches)
            compared.append((self._losses, loss))
            is_finite = is_finite & ops.isfinite(loss)
        skip = ~is_finite
        for window, value in compared:
            skip = skip | window.is_outlier(value)
        for window, value in compared:
            window.learn(value, skip, is_finite)
        return skip

    def _mean(self, loss: Tensor, batches: int) -> Tensor:
        loss = ops.cast(loss, self._dtype)
        if batches == 1:
            return loss
        assert self._loss_sum is not None
        mean = (self._loss_sum + loss) / batches
        self._loss_sum.assign(ops.zeros_like(mean))
        return mean
