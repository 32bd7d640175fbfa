"""Assignments to variables on JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from keras_clip._seam.jax import control_flow
from keras_clip.norms import floating_point
from keras_clip.types import FactorPair, Tensor, Variable


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Limit each variable to its bound, if any value exceeds its bound."""
    values = [variable.value for variable in variables]
    clamped = _compiled_clamped(values, list(bounds), control_flow.loop_pays(values[0]))
    for variable, value in zip(variables, clamped, strict=True):
        variable.assign(value)


def _clamped(values: list[Tensor], bounds: list[Tensor], in_loop: bool) -> list[Tensor]:
    pairs = list(zip(values, bounds, strict=True))
    outside = jnp.stack([jnp.any(jnp.abs(value) > bound) for value, bound in pairs])

    def clamp_all(values: list[Tensor], bounds: list[Tensor]) -> list[Tensor]:
        return list(map(floating_point.clamped, values, bounds))

    return control_flow.change_if(jnp.any(outside), clamp_all, values, bounds, in_loop=in_loop)


def shrink_changes(
    variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
) -> None:
    """Assign to all variables, if any share is below 1."""
    values = [variable.value for variable in variables]
    coarse, fine = map(list, zip(*factors, strict=True))
    in_loop = control_flow.loop_pays(values[0])
    shrunk = _compiled_shrunk(values, list(before), coarse, fine, in_loop)
    for variable, value in zip(variables, shrunk, strict=True):
        variable.assign(value)


def _shrunk(
    values: list[Tensor],
    before: list[Tensor],
    coarse: list[Tensor],
    fine: list[Tensor],
    in_loop: bool,
) -> list[Tensor]:
    def shrink_all(values: list[Tensor], *others: list[Tensor]) -> list[Tensor]:
        before, coarse, fine = others
        return list(map(floating_point.between, before, values, coarse, fine))

    exceeds = jnp.any(jnp.stack(coarse) * jnp.stack(fine) < 1.0)
    return control_flow.change_if(
        exceeds, shrink_all, values, before, coarse, fine, in_loop=in_loop
    )


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Update the array; a compiled step that owns it does so in place."""
    variable.assign(_compiled_with_row(variable.value, index, row))


def _with_row(array: Tensor, index: Tensor, row: Tensor) -> Tensor:
    # `at[].set` would first check that the index is valid.
    return jax.lax.dynamic_update_index_in_dim(array, row, index, 0)


_compiled_shrunk = jax.jit(_shrunk, static_argnums=4)
_compiled_clamped = jax.jit(_clamped, static_argnums=2)
_compiled_with_row = jax.jit(_with_row)
