"""An optimizer's step, compiled as users of each backend compile it."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tests.support.gradient_stream import as_tensors

Step = Callable[[Sequence[np.ndarray]], None]


def compiled_step(optimizer: Any, variables: list[Any], jit_compile: bool = False) -> Step:
    """`tf.function`, `jax.jit` of `stateless_apply`, or on torch the plain call."""
    optimizer.build(variables)
    make = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.config.backend()]
    return make(optimizer, variables, jit_compile)


def _tensorflow(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def apply(gradients: list[Any]) -> None:
        optimizer.apply(gradients, variables)

    return lambda gradients: apply(as_tensors(gradients))


def _jax(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    import jax

    apply = jax.jit(optimizer.stateless_apply)

    def step(gradients: Sequence[np.ndarray]) -> None:
        state = [variable.value for variable in optimizer.variables]
        weights = [variable.value for variable in variables]
        weights, state = apply(state, as_tensors(gradients), weights)
        for variable, value in zip(
            [*variables, *optimizer.variables], [*weights, *state], strict=True
        ):
            variable.assign(value)

    return step


def _torch(optimizer: Any, variables: list[Any], jit_compile: bool) -> Step:
    return lambda gradients: optimizer.apply(as_tensors(gradients), variables)
