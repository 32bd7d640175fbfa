"""Decisions on the device: branches, and loops with at most one iteration."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras

from keras_clip.types import Tensor, Variable

_Function = Callable[..., list[Any]]


def loop_pays(tensor: Tensor) -> bool:
    """Return whether a decision about `tensor` is faster as a loop than as a branch."""
    # A program must not overwrite its caller's inputs. On an accelerator, the host reads the
    # condition of a loop more than once.
    return isinstance(tensor, jax.core.Tracer) and jax.default_backend() == "cpu"


def change_if(
    condition: Tensor, function: _Function, values: list[Any], *operands: Any, in_loop: bool
) -> list[Any]:
    """Return `function(values, *operands)`, or the same bits of `values` if `condition` is false.

    Args:
        condition: boolean scalar tensor.
        function: reads no other tensors.
        values: list of tensors.
        operands: other tensors that it reads.
        in_loop: whether to use a loop with at most one iteration, which XLA runs in place. A
            branch copies all its results.
    """
    choose = _in_loop if in_loop else _in_branch
    return choose(function, condition, values, operands)


def _in_branch(
    function: _Function, condition: Tensor, values: list[Any], operands: tuple[Any, ...]
) -> list[Any]:
    chosen: list[Any] = jax.lax.cond(condition, lambda: function(values, *operands), lambda: values)
    return chosen


def _loop(
    function: _Function, condition: Tensor, values: list[Any], operands: tuple[Any, ...]
) -> list[Any]:
    def turn(state: tuple[Tensor, list[Any]]) -> tuple[Tensor, list[Any]]:
        return jnp.zeros_like(state[0]), function(state[1], *operands)

    result: list[Any] = jax.lax.while_loop(lambda state: state[0], turn, (condition, values))[1]
    return result


def _derivative_of_the_branch(function: _Function, primals: Any, tangents: Any) -> Any:
    return jax.jvp(partial(_in_branch, function), primals, tangents)


# A loop has no reverse derivative; a branch with the same result has one.
_in_loop = jax.custom_jvp(_loop, nondiff_argnums=(0,))
_in_loop.defjvp(_derivative_of_the_branch)


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `otherwise(*arguments)` if the scalar is true, else `body(*arguments)`."""
    if not isinstance(condition, jax.core.Tracer):
        # Outside `jit`, every call of `cond` would compile both branches again.
        otherwise(*arguments) if bool(condition) else body(*arguments)
        return

    def stateless(function: Callable[..., None]) -> _Function:
        def run(values: list[Tensor], *arguments: Any) -> list[Tensor]:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope:
                function(*arguments)
            return [scope.get_current_value(variable) for variable in variables]

        return run

    values = [variable.value for variable in variables]
    instead, usual = stateless(otherwise), stateless(body)
    if loop_pays(condition):
        values = change_if(condition, instead, values, *arguments, in_loop=True)
        values = change_if(~condition, usual, values, *arguments, in_loop=True)
    else:
        values = jax.lax.cond(condition, instead, usual, values, *arguments)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
