"""The clip alone on JAX: each one jitted function, gradients in, gradients out.

The functions may overwrite their gradients, as a training step may overwrite its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import optax

import keras_clip
from benchmarks.interleaved import Variant

PEER = "optax.clip_by_global_norm"
SPARSE = False


class Clips:
    """Gradients of some steps, and programs to clip them.

    Args:
        sets: for each step a list of NumPy arrays.
    """

    def __init__(self, sets: list[list[Any]]) -> None:
        # Copies: on a CPU JAX may keep using the memory of NumPy's array.
        self.sets = [[jnp.array(gradient) for gradient in own] for own in sets]
        self.programs: dict[Callable[..., Any], Any] = {}

    def variant(self, function: Callable[..., Any], *limit: float) -> Variant:
        """Time the function of the gradients of a step, and of limits if any."""
        program = self.programs.setdefault(function, _program(function))
        constants = [jnp.float32(value) for value in limit]

        def run(gradients: list[Any]) -> Any:
            result, number = jax.block_until_ready(program(gradients, *constants))
            return result, float(number)

        def prepare(index: int) -> list[Any]:
            return jax.block_until_ready([jnp.array(gradient) for gradient in self.sets[index]])

        return Variant(prepare, run)

    def by_keras_clip(self, gradients: list[Any], limit: Any) -> list[Any]:
        return keras_clip.clip_by_global_norm(gradients, limit)[0]

    def by_peer(self, gradients: list[Any], limit: Any) -> list[Any]:
        clip = optax.clip_by_global_norm(limit)
        return clip.update(gradients, clip.init(gradients))[0]


def _program(function: Callable[..., Any]) -> Any:
    def program(gradients: list[Any], *limit: Any) -> Any:
        result = function(gradients, *limit)
        last = result[-1] if isinstance(result, list) else result
        return result, jnp.ravel(last)[0]

    # A norm alone cannot reuse the memory of the gradients.
    gives_gradients = function not in (safe_norm, unsafe_norm)
    return jax.jit(program, donate_argnums=0 if gives_gradients else ())


def by_keras(limit: float) -> Callable[[list[Any]], list[Any]]:
    return keras.optimizers.SGD(global_clipnorm=limit)._clip_gradients


def without_safety(gradients: list[Any], limit: Any) -> list[Any]:
    """Clip by a norm that overflows, and all by one factor, which may be 1."""
    factor = jnp.minimum(1.0, limit / optax.tree.norm(gradients))
    return [gradient * factor for gradient in gradients]


def safe_norm(gradients: list[Any]) -> Any:
    return keras_clip.global_norm(gradients)


def unsafe_norm(gradients: list[Any]) -> Any:
    return optax.tree.norm(gradients)
