"""An optimizer's step, compiled as users of each backend compile it."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tests.support.gradient_stream import as_tensors

Step = Callable[..., None]
"""A function of the gradients, and of the loss of the step if the optimizer reads it."""


def compiled_step(optimizer: Any, variables: list[Any], jit_compile: bool = False) -> Step:
    """`tf.function`, `jax.jit` of `stateless_apply`, or on torch the plain call."""
    optimizer.build(variables)
    make = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.config.backend()]
    return make(optimizer, variables, jit_compile)


def _tensorflow(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def apply(gradients: list[Any], **loss: Any) -> None:
        optimizer.apply(gradients, variables, **loss)

    return lambda gradients, loss=None: apply(as_tensors(gradients), **_given(loss))


def _jax(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    import jax

    apply = jax.jit(optimizer.stateless_apply)

    def step(gradients: Sequence[np.ndarray], loss: Any = None) -> None:
        state = [variable.value for variable in optimizer.variables]
        weights = [variable.value for variable in variables]
        weights, state = apply(state, as_tensors(gradients), weights, **_given(loss))
        for variable, value in zip(
            [*variables, *optimizer.variables], [*weights, *state], strict=True
        ):
            variable.assign(value)

    return step


def _torch(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    return lambda gradients, loss=None: optimizer.apply(
        as_tensors(gradients), variables, **_given(loss)
    )


def _given(loss: Any) -> dict[str, Any]:
    # Optimizers of Keras have no argument `loss`.
    return {} if loss is None else {"loss": loss}
