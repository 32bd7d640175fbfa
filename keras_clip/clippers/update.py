"""The input of a clipper."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import keras
from keras import ops

from keras_clip.clippers.clipped import Clipped
from keras_clip.norms import floating_point
from keras_clip.norms.global_norm import (
    global_norm_scaled_to,
    norm_of_tensors,
    norms_of_tensors,
    scale_each_to_norm,
    scale_to_norm,
)
from keras_clip.types import Gradient, Tensor, Variable


class Update:
    """Gradients right before the wrapped optimizer uses them.

    They are the whole batch's: unscaled, accumulated, summed over replicas, without `None`.
    Each norm is computed once, at its first use.

    Args:
        gradients: list of tensors, on TensorFlow also of `tf.IndexedSlices`.
        variables: list of the variables that they update, in the same order.
        step: integer scalar tensor, the number of updates applied before this one.
        may_overwrite: bool, whether torch may scale gradients in place that are their variables'
            `.grad`. Defaults to False.
        needs_norms: bool, whether the norms of single gradients will be used. The global norm is
            then computed from them, and the gradients are read once. Defaults to False.
    """

    def __init__(
        self,
        gradients: list[Gradient],
        variables: list[Variable],
        step: Tensor,
        *,
        may_overwrite: bool = False,
        needs_norms: bool = False,
    ) -> None:
        self.gradients = gradients
        self.variables = variables
        self.step = step
        self._overwritable = variables if may_overwrite else []
        self._needs_norms = needs_norms

    @cached_property
    def global_norm(self) -> Tensor:
        """Scalar tensor, `keras_clip.global_norm(gradients)`, to rounding."""
        by_norms = self._needs_norms and self.gradients
        return norm_of_tensors([self.norms] if by_norms else self.gradients)

    @cached_property
    def norms(self) -> Tensor:
        """Tensor of shape `(len(gradients),)`, the norm of each gradient by itself."""
        return norms_of_tensors(self.gradients)

    @property
    def norm_is_in_range(self) -> Tensor:
        """Boolean scalar tensor, whether the dtype of the global norm holds it.

        False if an entry is NaN or infinite, or if the norm of finite entries overflows. Do not
        learn from such a norm.
        """
        return floating_point.is_in_range(self.global_norm)

    def p_norm(self, norm_type: float) -> Tensor:
        """Return the `norm_type`-norm of all entries; for 2, the global norm."""
        if norm_type == 2.0:
            return self.global_norm
        return norm_of_tensors(self.gradients, norm_type)

    def scaled_to_norm(self, max_norm: Tensor, norm_type: float = 2.0) -> Clipped:
        """Return `g_i * min(1, max_norm / norm)`, with the `norm_type`-norm.

        The record shows `max_norm` if it limits the global norm.
        """
        norm = self.p_norm(norm_type)
        scaled = scale_to_norm(self.gradients, norm, max_norm, self._overwritable, norm_type)
        if norm_type != 2.0:
            return Clipped(tuple(scaled))
        return Clipped(tuple(scaled), max_norm, norm_before=norm)

    def scaled_each_to_norm(self, limits: Tensor) -> Clipped:
        """Return `g_i * min(1, limits_i / norms_i)`."""
        scaled = scale_each_to_norm(self.gradients, self.norms, limits, self._overwritable)
        return Clipped(
            tuple(scaled),
            norm=lambda: global_norm_scaled_to(self.global_norm, self.norms, limits),
        )

    def evaluate(self, threshold: Any) -> Any:
        """Return the value of a `Threshold` at this step, a tensor, or None for None."""
        if threshold is None:
            return None
        if isinstance(threshold, keras.Variable):
            return threshold.value
        value = threshold(self.step) if callable(threshold) else threshold
        if isinstance(value, float):
            return floating_point.scalar(value, keras.config.floatx())
        return ops.convert_to_tensor(value)

    def with_gradients(self, gradients: list[Gradient], global_norm: Tensor | None = None) -> Self:
        """Return the same update with other gradients, and their norm if it is known."""
        update = type(self)(
            gradients,
            self.variables,
            self.step,
            may_overwrite=bool(self._overwritable),
            needs_norms=self._needs_norms,
        )
        if global_norm is not None:
            update.__dict__["global_norm"] = global_norm
        return update

    def subset(self, positions: Sequence[int]) -> Self:
        """Return the update of some of the variables."""
        gradients = [self.gradients[position] for position in positions]
        return type(self)(gradients, [self.variables[p] for p in positions], self.step)
