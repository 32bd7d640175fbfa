"""The functions of the TensorFlow backend."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from keras_clip._seam.backend import Backend
from keras_clip._seam.tensorflow import (
    assignments,
    control_flow,
    graphs,
    norms,
    replicas,
    scaling,
)
from keras_clip._seam.tensorflow import gradients as tensorflow_gradients
from keras_clip.types import FactorPair, Gradient, Gradients, Tensor, Variable


class TensorFlowBackend(Backend):
    """Decisions are nodes of a graph, and gradients may have to be summed over replicas."""

    def as_gradient(self, value: Any) -> Gradient:
        return tensorflow_gradients.as_gradient(value)

    def is_sparse(self, gradient: Gradient) -> bool:
        return tensorflow_gradients.is_sparse(gradient)

    def values(self, gradient: Gradient) -> Tensor:
        return tensorflow_gradients.values(gradient)

    def map_values(self, gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
        return tensorflow_gradients.map_values(gradient, function)

    def norm_operand(self, gradient: Gradient) -> Tensor:
        return tensorflow_gradients.norm_operand(gradient)

    def with_rows_summed(self, gradient: Gradient) -> Gradient:
        return tensorflow_gradients.with_rows_summed(gradient)

    def row_totals(self, gradient: Gradient) -> tuple[Tensor, Tensor]:
        return tensorflow_gradients.row_totals(gradient)

    def global_norm(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.global_norm(operands, dtype)

    def norms(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.norms(operands, dtype)

    def scale_to_norm(
        self,
        gradients: Gradients,
        norm: Tensor,
        max_norm: Tensor,
        overwritable: Sequence[Variable],
        norm_type: float = 2.0,
    ) -> list[Gradient]:
        del overwritable
        return scaling.scale_to_norm(gradients, norm, max_norm, norm_type)

    def scale_each_to_norm(
        self,
        gradients: Gradients,
        norms: Tensor,
        limits: Tensor,
        overwritable: Sequence[Variable],
    ) -> list[Gradient]:
        del overwritable
        return scaling.scale_each_to_norm(gradients, norms, limits)

    def where(self, condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
        return tf.where(condition, one, other)

    def stack(self, scalars: Sequence[Tensor]) -> Tensor:
        return tf.stack(list(scalars))

    def compiled(self, function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        # Python values are always static.
        del static
        return graphs.compiled(function)

    def choose(
        self, predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]
    ) -> Any:
        return tf.cond(predicate, quick, general)

    def can_raise(self, tensor: Tensor, may_wait: bool) -> bool:
        del tensor
        return control_flow.can_raise(may_wait)

    def raise_where(
        self,
        fatal: Tensor,
        error: Callable[[Sequence[str]], Exception],
        names: Sequence[str],
        flags: Tensor,
        after: Sequence[Tensor],
    ) -> None:
        if tf.executing_eagerly():
            super().raise_where(fatal, error, names, flags, after)
        else:
            control_flow.assert_not(fatal, error, names, flags, after)

    def run_unless(
        self,
        condition: Tensor,
        body: Callable[..., None],
        otherwise: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        del variables
        control_flow.run_unless(condition, body, otherwise, arguments)

    def clamp(self, variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
        assignments.clamp(variables, bounds)

    def tensors(self, variables: Sequence[Variable]) -> list[Tensor]:
        return assignments.tensors(variables)

    def shrink_changes(
        self, variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
    ) -> None:
        assignments.shrink_changes(variables, before, factors)

    def write_row(self, variable: Variable, index: Tensor, row: Tensor) -> None:
        assignments.write_row(variable, index, row)

    def count_up(self, variable: Variable) -> None:
        assignments.count_up(variable)

    def all_reduce(
        self,
        original: Callable[..., Any] | None,
        gradients: Gradients,
        variables: Sequence[Variable],
    ) -> list[Gradient]:
        return replicas.all_reduce(original, gradients, variables)

    def whole_loss(self, loss: Tensor) -> Tensor:
        return replicas.whole_loss(loss)

    def this_replica(self) -> int:
        # MirroredStrategy traces each replica in a thread of its own.
        return threading.get_ident()

    def on_every_replica(self, flag: Tensor) -> Tensor:
        return replicas.on_every_replica(flag)

    def decides_across_replicas(self) -> bool:
        return replicas.decides_across_replicas()

    def asynchronous_strategy(self) -> str | None:
        return replicas.asynchronous_strategy()

    def process_count(self, variable: Variable) -> int:
        return replicas.process_count(variable)

    def scope_of(self, variable: Variable) -> AbstractContextManager[Any]:
        return replicas.scope_of(variable)
