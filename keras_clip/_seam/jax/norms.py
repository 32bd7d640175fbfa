"""Norms on JAX."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import keras

from keras_clip.norms import floating_point
from keras_clip.types import Tensor

# Arrays with at most this many entries are joined into one vector before they are squared.
_LARGEST_FLATTENED = 2**12


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the root of the sum of squares, rescaled only if squares leave the range."""
    # For sharded variables, exchange only the last sum between devices: one number.
    may_join = keras.distribution.distribution() is None
    return _compiled_global_norm(list(operands), dtype, may_join)


def _global_norm(operands: list[Tensor], dtype: str, may_join: bool) -> Tensor:
    if may_join:
        operands = small_ones_joined(operands, dtype)
    return _root_or(_sum_of_squares(operands, dtype, may_join), lambda: _kept_in_branch(operands))


def change_norm(now: Sequence[Tensor], before: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the norm of the differences, without storing them."""
    may_join = keras.distribution.distribution() is None
    return _compiled_change_norm(list(now), list(before), dtype, may_join)


def _change_norm(now: list[Tensor], before: list[Tensor], dtype: str, may_join: bool) -> Tensor:
    # XLA stores every input of a branch, so the branch subtracts again and reads no difference.
    operands = floating_point.differences(now, before)
    if may_join:
        operands = small_ones_joined(operands, dtype)
    return _root_or(
        _sum_of_squares(operands, dtype, may_join),
        lambda: floating_point.differences(_kept_in_branch(now), _kept_in_branch(before)),
    )


def _sum_of_squares(operands: list[Tensor], dtype: str, may_join: bool) -> Tensor:
    # Reduce partly, concatenate, reduce once: fewer small kernels. The barrier keeps XLA from
    # taking the sums apart again.
    sums_of = _sums if may_join else _sum
    sums = jnp.concatenate([sums_of(jnp.square(operand.astype(dtype))) for operand in operands])
    return jnp.sum(jax.lax.optimization_barrier(sums))


def _root_or(sum_of_squares: Tensor, operands: Callable[[], list[Tensor]]) -> Tensor:
    """Return the root, or the norm of `operands()` if the sum is not ordinary."""
    return jax.lax.cond(
        floating_point.is_ordinary(sum_of_squares),
        lambda: floating_point.root(sum_of_squares),
        # Without this barrier, XLA compiles for minutes with a thousand gradients.
        lambda: floating_point.rescaled_norm(operands(), jax.lax.optimization_barrier),
    )


def small_ones_joined(operands: list[Tensor], dtype: str) -> list[Tensor]:
    """Return real tensors with the norm of `operands`, as few as is quick."""
    # One kernel copies them and one sums them. Fewer kernels matter: a branch costs time for each
    # of its kernels, even if it is not taken.
    small = [o.astype(dtype).reshape(-1) for o in operands if o.size <= _LARGEST_FLATTENED]
    large = [operand for operand in operands if operand.size > _LARGEST_FLATTENED]
    return [jax.lax.optimization_barrier(jnp.concatenate(small)), *large] if small else large


def _sums(values: Tensor) -> Tensor:
    """Sum as far as one pass allows."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim))) if values.ndim > 1 else _sum(values)


def _sum(values: Tensor) -> Tensor:
    return jnp.sum(values)[None]


def _kept_in_branch(operands: list[Tensor]) -> list[Tensor]:
    """Hide the sums from XLA, which on GPUs may compute both branches and select."""
    hidden: list[Tensor] = jax.lax.optimization_barrier(operands)
    return hidden


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the norm of each operand; all are rescaled if any squares leave the range."""
    return _compiled_norms(list(operands), dtype)


def _norms(operands: list[Tensor], dtype: str) -> Tensor:
    sums = jnp.stack([jnp.sum(jnp.square(operand.astype(dtype))) for operand in operands])
    return jax.lax.cond(
        jnp.all(floating_point.is_ordinary(sums)),
        lambda: floating_point.root(sums),
        lambda: floating_point.rescaled_norms(_kept_in_branch(operands), dtype),
    )


# Outside `jit`, every call of `cond` would compile both branches again.
_compiled_global_norm = jax.jit(_global_norm, static_argnums=(1, 2))
_compiled_change_norm = jax.jit(_change_norm, static_argnums=(2, 3))
_compiled_norms = jax.jit(_norms, static_argnums=1)
