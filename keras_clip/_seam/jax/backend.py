"""The functions of the JAX backend."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from keras_clip._seam.backend import Backend
from keras_clip._seam.jax import assignments, control_flow, norms, scaling
from keras_clip._seam.jax import gradients as jax_gradients
from keras_clip.types import FactorPair, Gradient, Gradients, Tensor, Variable


class JaxBackend(Backend):
    """An array is logical and spans all devices, so no reduction over replicas is needed."""

    SPARSE_KIND = "a jax BCOO"
    may_keep_loss = False

    def as_gradient(self, value: Any) -> Gradient:
        return jax_gradients.as_gradient(value)

    def is_sparse(self, gradient: Gradient) -> bool:
        return jax_gradients.is_sparse(gradient)

    def values(self, gradient: Gradient) -> Tensor:
        return jax_gradients.values(gradient)

    def map_values(self, gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
        return jax_gradients.map_values(gradient, function)

    def norm_operand(self, gradient: Gradient) -> Tensor:
        return jax_gradients.norm_operand(gradient)

    def global_norm(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.global_norm(operands, dtype)

    def change_norm(self, now: Sequence[Tensor], before: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.change_norm(now, before, dtype)

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
        return jnp.where(condition, one, other)

    def stack(self, scalars: Sequence[Tensor]) -> Tensor:
        return jnp.stack(list(scalars))

    def compiled(self, function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        # Outside `jit`, every call of `cond` would compile both branches again.
        jitted: Callable[..., Any] = jax.jit(function, static_argnums=static)
        return jitted

    def choose(
        self, predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]
    ) -> Any:
        return jax.lax.cond(predicate, quick, general)

    def can_raise(self, tensor: Tensor, may_wait: bool) -> bool:
        del may_wait
        return not isinstance(tensor, jax.core.Tracer)

    def run_unless(
        self,
        condition: Tensor,
        body: Callable[..., None],
        otherwise: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        control_flow.run_unless(condition, body, otherwise, arguments, variables)

    def clamp(self, variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
        assignments.clamp(variables, bounds)

    def shrink_changes(
        self, variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
    ) -> None:
        assignments.shrink_changes(variables, before, factors)

    def write_row(self, variable: Variable, index: Tensor, row: Tensor) -> None:
        assignments.write_row(variable, index, row)

    def count_up(self, variable: Variable) -> None:
        variable.assign(variable.value + 1)

    def process_count(self, variable: Variable) -> int:
        del variable
        count: int = jax.process_count()
        return count

    def on_every_device(self, rank: int) -> dict[str, Any]:
        distribution = keras.distribution.distribution()
        # Keras 3.8 has no argument for a layout.
        if distribution is None or "layout" not in inspect.signature(keras.Variable).parameters:
            return {}
        mesh = distribution.device_mesh
        return {"layout": keras.distribution.TensorLayout([None] * rank, mesh)}
