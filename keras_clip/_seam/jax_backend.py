"""Norm and clip on JAX."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.experimental.sparse import BCOO
from keras import ops

from keras_clip._seam import host_errors
from keras_clip._seam.sparse import NO_SPARSE
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor, Variable

UPDATES_ON_MICRO_STEPS = True

# Entries of an array that goes into one vector with others before it is squared.
_LARGEST_FLATTENED = 2**12

# Nothing is recorded: JAX differentiates functions.
no_gradients = nullcontext


def as_gradient(value: Any) -> Gradient:
    """Return `value` as an array; a sparse array stays one."""
    return value if isinstance(value, BCOO) else ops.convert_to_tensor(value)


def is_sparse(gradient: Gradient) -> bool:
    """Whether it is a `BCOO`."""
    return isinstance(gradient, BCOO)


def row_totals(gradient: Gradient) -> tuple[Tensor, Tensor]:
    """Refuse: Keras makes no sparse gradients on JAX."""
    raise TypeError(NO_SPARSE.format(kind="a jax BCOO"))


def norm_operand(gradient: Gradient) -> Tensor:
    """Values of `gradient`; of a sparse array, with repeated entries summed."""
    if isinstance(gradient, BCOO):
        # With nse given the shape is static, as `jit` needs it.
        return gradient.sum_duplicates(nse=gradient.nse).data
    return gradient


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Square root of the sum of squares, rescaled only where squares leave the range."""
    # Of a sharded variable only the last of all sums may be exchanged: one number.
    may_join = keras.distribution.distribution() is None
    return _compiled_global_norm(list(operands), dtype, may_join)


def _global_norm(operands: list[Tensor], dtype: str, may_join: bool) -> Tensor:
    # To the end by itself, each sum would take a kernel or two more, most of them for nothing:
    # on an accelerator they are many and tiny. XLA takes the sums apart again if it may.
    if may_join:
        operands = _small_ones_joined(operands, dtype)
    sums_of = _sums if may_join else _sum
    sums = jnp.concatenate([sums_of(jnp.square(operand.astype(dtype))) for operand in operands])
    sum_of_squares = jnp.sum(jax.lax.optimization_barrier(sums))
    return jax.lax.cond(
        floating_point.is_ordinary(sum_of_squares),
        lambda: jnp.sqrt(sum_of_squares),
        # Left to itself, XLA takes minutes over a thousand gradients.
        lambda: floating_point.rescaled_norm(
            _kept_in_branch(operands), jax.lax.optimization_barrier
        ),
    )


def _small_ones_joined(operands: list[Tensor], dtype: str) -> list[Tensor]:
    # One kernel to copy them and one to add them up, in the place of one for each; and as few in
    # the branch, which takes time by the number of its kernels even where it is not taken.
    small = [o.astype(dtype).reshape(-1) for o in operands if o.size <= _LARGEST_FLATTENED]
    large = [operand for operand in operands if operand.size > _LARGEST_FLATTENED]
    return [jax.lax.optimization_barrier(jnp.concatenate(small)), *large] if small else large


def _sums(values: Tensor) -> Tensor:
    """Add up so far as one pass goes."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim))) if values.ndim > 1 else _sum(values)


def _sum(values: Tensor) -> Tensor:
    return jnp.sum(values)[None]


def _kept_in_branch(operands: list[Tensor]) -> list[Tensor]:
    """Hide them from XLA, which for GPUs may compute cheap branches both and select."""
    hidden: list[Tensor] = jax.lax.optimization_barrier(operands)
    return hidden


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Norm of each operand, all rescaled where the squares of any leave the range."""
    return _compiled_norms(list(operands), dtype)


def _norms(operands: list[Tensor], dtype: str) -> Tensor:
    sums = jnp.stack([jnp.sum(jnp.square(operand.astype(dtype))) for operand in operands])
    return jax.lax.cond(
        jnp.all(floating_point.is_ordinary(sums)),
        lambda: jnp.sqrt(sums),
        lambda: floating_point.rescaled_norms(_kept_in_branch(operands), dtype),
    )


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    del overwritable
    return list(_compiled_scale_to_norm(list(gradients), norm, max_norm, _loop_pays(norm)))


def _scale_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, in_loop: bool
) -> list[Gradient]:
    first, second = floating_point.two_factors(norm, max_norm)
    factors = [first] * len(gradients), [second] * len(gradients)
    return _scaled_unless(
        floating_point.needs_no_clip(norm, max_norm), gradients, *factors, in_loop
    )


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    del overwritable
    scale = _compiled_scale_each_to_norm
    return list(scale(list(gradients), norms, limits, _loop_pays(norms)))


def _scale_each_to_norm(
    gradients: list[Gradient], norms: Tensor, limits: Tensor, in_loop: bool
) -> list[Gradient]:
    first, second = floating_point.factors(norms, limits)
    idle = jnp.all(floating_point.needs_no_clip(norms, limits))
    return _scaled_unless(idle, gradients, list(first), list(second), in_loop)


def _scaled_unless(
    idle: Tensor,
    gradients: list[Gradient],
    first: list[Tensor],
    second: list[Tensor],
    in_loop: bool,
) -> list[Gradient]:
    """Return `gradients`, every bit of them, where `idle`, else times both factors.

    Neither is fused into the update: XLA would round there otherwise than without a clip, so
    that Adam differs from the bare one in the last bit of an idle step.
    """
    choose = _differentiable_loop if in_loop else _scaled_in_branch
    return choose(idle, gradients, first, second)


def _scaled_in_branch(
    idle: Tensor, gradients: list[Gradient], first: list[Tensor], second: list[Tensor]
) -> list[Gradient]:
    chosen: list[Gradient] = jax.lax.cond(
        idle, lambda: gradients, lambda: list(map(_scaled, gradients, first, second))
    )
    return chosen


def _scaled_in_loop(
    idle: Tensor, gradients: list[Gradient], first: list[Tensor], second: list[Tensor]
) -> list[Gradient]:
    return _once_if(~idle, lambda values: list(map(_scaled, values, first, second)), gradients)


# A loop has no derivative in reverse; a branch with the same result has.
_differentiable_loop = jax.custom_jvp(_scaled_in_loop)
_differentiable_loop.defjvp(partial(jax.jvp, _scaled_in_branch))


def _once_if(
    condition: Tensor, function: Callable[[list[Any]], list[Any]], values: list[Any]
) -> list[Any]:
    """Return `function(values)` or, where `condition` is false, `values`.

    By a loop of one turn or none, which XLA runs in place: a branch copies all that it returns.
    """

    def turn(state: tuple[Tensor, list[Any]]) -> tuple[Tensor, list[Any]]:
        return jnp.zeros_like(state[0]), function(state[1])

    result: list[Any] = jax.lax.while_loop(lambda state: state[0], turn, (condition, values))[1]
    return result


def _loop_pays(tensor: Tensor) -> bool:
    """Whether what is computed with `tensor` is better left to a loop than to a branch."""
    # What a program is called with it may not overwrite. An accelerator's loop waits for the host
    # to read its condition, more than once.
    return isinstance(tensor, jax.core.Tracer) and jax.default_backend() == "cpu"


def _scaled(gradient: Gradient, first: Tensor, second: Tensor) -> Gradient:
    def multiply(values: Tensor) -> Tensor:
        wide = values.astype(jnp.float32) if floating_point.is_half(values) else values
        return (wide * first * second).astype(values.dtype)

    return map_values(gradient, multiply)


def values(gradient: Gradient) -> Tensor:
    """Return the array, or the data of a sparse one."""
    return gradient.data if is_sparse(gradient) else gradient


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the array, or to the data of a sparse one."""
    if not is_sparse(gradient):
        return function(gradient)
    return BCOO(
        (function(gradient.data), gradient.indices),
        shape=gradient.shape,
        indices_sorted=gradient.indices_sorted,
        unique_indices=gradient.unique_indices,
    )


# For the sake of loops that are not compiled: outside `jit` every call of `cond` would
# compile its two branches again, a quarter of a second a step.
_compiled_global_norm = jax.jit(_global_norm, static_argnums=(1, 2))
_compiled_norms = jax.jit(_norms, static_argnums=1)
_compiled_scale_to_norm = jax.jit(_scale_to_norm, static_argnums=3)
_compiled_scale_each_to_norm = jax.jit(_scale_each_to_norm, static_argnums=3)


def compiled(function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
    """Compile, as above."""
    jitted: Callable[..., Any] = jax.jit(function, static_argnums=static)
    return jitted


def choose(predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]) -> Any:
    """Decide on the device, and hide the decision from fusion: see `_scale_to_norm`."""
    return jax.lax.cond(predicate, quick, general)


def is_known_to_hold(condition: Tensor) -> bool:
    """No: the scalar stays on the device."""
    del condition
    return False


def all_reduce(
    original: Callable[..., object] | None, gradients: Gradients, variables: Sequence[Variable]
) -> list[Gradient]:
    """Return `gradients`: under `jit` an array is the logical one, over all devices."""
    del original, variables
    return list(gradients)


def replicas() -> int:
    """One: devices share the one logical program."""
    return 1


def on_every_replica(flag: Tensor) -> Tensor:
    """Return `flag`: see `replicas`."""
    return flag


def decides_across_replicas() -> bool:
    """No: see `replicas`."""
    return False


def on_every_device(rank: int) -> dict[str, Any]:
    """Return the layout that splits nothing, where variables take one: not in Keras 3.8."""
    distribution = keras.distribution.distribution()
    if distribution is None or "layout" not in inspect.signature(keras.Variable).parameters:
        return {}
    return {"layout": keras.distribution.TensorLayout([None] * rank, distribution.device_mesh)}


def scope_of(variable: Variable) -> AbstractContextManager[object]:
    """Nothing to enter: strategies are TensorFlow's."""
    del variable
    return nullcontext()


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `body(*arguments)` or, where `condition` is true, `otherwise(*arguments)`."""
    if not isinstance(condition, jax.core.Tracer):
        # Outside `jit` every call of `cond` would compile both branches again.
        otherwise(*arguments) if bool(condition) else body(*arguments)
        return

    def stateless(function: Callable[[], None]) -> Callable[[list[Tensor]], list[Tensor]]:
        def run(values: list[Tensor]) -> list[Tensor]:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                function()
            return [scope.get_current_value(variable) for variable in variables]

        return run

    values = [variable.value for variable in variables]
    instead, usual = (stateless(partial(run, *arguments)) for run in (otherwise, body))
    if _loop_pays(condition):
        values = _once_if(~condition, usual, _once_if(condition, instead, values))
    else:
        values = jax.lax.cond(condition, instead, usual, values)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def accumulate_or_update(
    is_micro_batch: Tensor,
    update: Callable[..., None],
    accumulate: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Decide on the device."""
    run_unless(is_micro_batch, update, accumulate, arguments, variables)


def raise_where(
    fatal: Tensor,
    error: Callable[[Sequence[str]], Exception],
    names: Sequence[str],
    flags: Tensor,
    may_wait: bool,
) -> bool:
    """Raise, unless this is traced: a compiled program has no way to."""
    del may_wait
    if isinstance(fatal, jax.core.Tracer):
        return False
    host_errors.raise_where(fatal, error, names, flags)
    return True


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Assign what is cut off, where anything is: see `_once_if`."""
    values = [variable.value for variable in variables]
    clamped = _compiled_clamped(values, list(bounds), _loop_pays(values[0]))
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
        return _once_if(jnp.any(outside), clamp_all, values)
    clamped: list[Tensor] = jax.lax.cond(jnp.any(outside), clamp_all, lambda values: values, values)
    return clamped


_compiled_clamped = jax.jit(_clamped, static_argnums=2)


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Update the array; a compiled step that owns it does so in place."""
    variable.assign(_compiled_with_row(variable.value, index, row))


def where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Choose entry by entry between tensors of one dtype."""
    return jnp.where(condition, one, other)


def stack(scalars: Sequence[Tensor]) -> Tensor:
    """Return them as one vector."""
    return jnp.stack(list(scalars))


def count_up(variable: Variable) -> None:
    """Assign the next number: arrays do not change."""
    variable.assign(variable.value + 1)


def _with_row(array: Tensor, index: Tensor, row: Tensor) -> Tensor:
    # Not `at[].set`, which checks the index first: it is known to be one.
    return jax.lax.dynamic_update_index_in_dim(array, row, index, 0)


_compiled_with_row = jax.jit(_with_row)
