"""The clip, given the norm, on JAX."""

from functools import partial

import jax
import jax.numpy as jnp

from keras_clip._seam.jax import control_flow
from keras_clip._seam.jax.gradients import map_values
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor


def scale_to_norm(gradients: Gradients, norm: Tensor, max_norm: Tensor) -> list[Gradient]:
    """Multiply all by `max_norm / norm` where there is anything to clip."""
    in_loop = control_flow.loop_pays(norm)
    return list(_compiled_scale_to_norm(list(gradients), norm, max_norm, in_loop))


def _scale_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, in_loop: bool
) -> list[Gradient]:
    first, second = floating_point.two_factors(norm, max_norm)
    factors = [first] * len(gradients), [second] * len(gradients)
    return _scaled_unless(
        floating_point.needs_no_clip(norm, max_norm), gradients, *factors, in_loop
    )


def scale_each_to_norm(gradients: Gradients, norms: Tensor, limits: Tensor) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    in_loop = control_flow.loop_pays(norms)
    return list(_compiled_scale_each_to_norm(list(gradients), norms, limits, in_loop))


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

    Neither is fused into the update. XLA would round it differently than without a clip, and Adam
    would differ from the bare one in the last bit of an idle step.
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
    return control_flow.once_if(
        ~idle, lambda values: list(map(_scaled, values, first, second)), gradients
    )


# A loop has no derivative in reverse; a branch with the same result has.
_differentiable_loop = jax.custom_jvp(_scaled_in_loop)
_differentiable_loop.defjvp(partial(jax.jvp, _scaled_in_branch))


def _scaled(gradient: Gradient, first: Tensor, second: Tensor) -> Gradient:
    def multiply(values: Tensor) -> Tensor:
        wide = values.astype(jnp.float32) if floating_point.is_half(values) else values
        return (wide * first * second).astype(values.dtype)

    return map_values(gradient, multiply)


# Outside `jit` every call of `cond` would compile its two branches again.
_compiled_scale_to_norm = jax.jit(_scale_to_norm, static_argnums=3)
_compiled_scale_each_to_norm = jax.jit(_scale_each_to_norm, static_argnums=3)
