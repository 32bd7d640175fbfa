"""Decisions on the device: branches, and loops of one turn or none."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras

from keras_clip.types import Tensor, Variable


def loop_pays(tensor: Tensor) -> bool:
    """Return whether a decision about `tensor` is faster as a loop than as a branch."""
    # A program must not overwrite its caller's inputs. An accelerator's loop waits for the host to
    # read its condition, more than once.
    return isinstance(tensor, jax.core.Tracer) and jax.default_backend() == "cpu"


def once_if(
    condition: Tensor, function: Callable[[list[Any]], list[Any]], values: list[Any]
) -> list[Any]:
    """Return `function(values)` or, where `condition` is false, `values`.

    A loop of one turn or none, which XLA runs in place: a branch copies all that it returns.
    """

    def turn(state: tuple[Tensor, list[Any]]) -> tuple[Tensor, list[Any]]:
        return jnp.zeros_like(state[0]), function(state[1])

    result: list[Any] = jax.lax.while_loop(lambda state: state[0], turn, (condition, values))[1]
    return result


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `otherwise(*arguments)` if the scalar is true, else `body(*arguments)`."""
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
    if loop_pays(condition):
        values = once_if(~condition, usual, once_if(condition, instead, values))
    else:
        values = jax.lax.cond(condition, instead, usual, values)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
