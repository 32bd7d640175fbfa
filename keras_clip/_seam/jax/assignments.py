"""Assignments to variables on JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from keras_clip._seam.jax import control_flow
from keras_clip.norms import floating_point
from keras_clip.types import Tensor, Variable


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Limit each variable to its bound, if any value is outside."""
    values = [variable.value for variable in variables]
    clamped = _compiled_clamped(values, list(bounds), control_flow.loop_pays(values[0]))
    for variable, value in zip(variables, clamped, strict=True):
        variable.assign(value)


def _clamped(values: list[Tensor], bounds: list[Tensor], in_loop: bool) -> list[Tensor]:
    pairs = list(zip(values, bounds, strict=True))
    outside = jnp.stack([jnp.any(jnp.abs(value) > bound) for value, bound in pairs])

    def clamp_all(values: list[Tensor]) -> list[Tensor]:
        return [
            floating_point.clamped(value, bound)
            for value, bound in zip(values, bounds, strict=True)
        ]

    if in_loop:
        return control_flow.once_if(jnp.any(outside), clamp_all, values)
    clamped: list[Tensor] = jax.lax.cond(jnp.any(outside), clamp_all, lambda values: values, values)
    return clamped


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Update the array; a compiled step that owns it does so in place."""
    variable.assign(_compiled_with_row(variable.value, index, row))


def _with_row(array: Tensor, index: Tensor, row: Tensor) -> Tensor:
    # Not `at[].set`, which first checks that the index is valid.
    return jax.lax.dynamic_update_index_in_dim(array, row, index, 0)


_compiled_clamped = jax.jit(_clamped, static_argnums=2)
_compiled_with_row = jax.jit(_with_row)
