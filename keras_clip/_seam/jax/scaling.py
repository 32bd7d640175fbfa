"""Scale gradients to a given norm on JAX."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import keras

from keras_clip._seam.jax import control_flow
from keras_clip._seam.jax.gradients import map_values, norm_operand
from keras_clip._seam.jax.norms import small_ones_joined
from keras_clip.norms import floating_point, scale_factors
from keras_clip.types import Gradient, Gradients, Tensor

_Scale = Callable[[list[Gradient], Tensor, Tensor], list[Gradient]]


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, norm_type: float
) -> list[Gradient]:
    """Multiply all gradients by `max_norm / norm` if the norm is above the threshold."""
    in_loop = control_flow.loop_pays(norm)
    return list(_compiled_scale_to_norm(list(gradients), norm, max_norm, norm_type, in_loop))


def _scale_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, norm_type: float, in_loop: bool
) -> list[Gradient]:
    def scaled(gradients: list[Gradient], norm: Tensor, max_norm: Tensor) -> list[Gradient]:
        factors = scale_factors.factors(norm, max_norm, partial(shrunk, gradients, norm))
        return [_scaled(gradient, *factors) for gradient in gradients]

    def shrunk(gradients: list[Gradient], norm: Tensor) -> Tensor:
        return jax.lax.cond(
            floating_point.is_in_range(norm),
            lambda: norm,
            lambda: _shrunk_norm(gradients, norm, norm_type),
        )

    idle = scale_factors.needs_no_clip(norm, max_norm)
    return _scaled_unless(idle, scaled, gradients, norm, max_norm, in_loop)


def scale_each_to_norm(gradients: Gradients, norms: Tensor, limits: Tensor) -> list[Gradient]:
    """Multiply each gradient by `limit / norm` if any norm is above its limit."""
    in_loop = control_flow.loop_pays(norms)
    return list(_compiled_scale_each_to_norm(list(gradients), norms, limits, in_loop))


def _scale_each_to_norm(
    gradients: list[Gradient], norms: Tensor, limits: Tensor, in_loop: bool
) -> list[Gradient]:
    def scaled(gradients: list[Gradient], norms: Tensor, limits: Tensor) -> list[Gradient]:
        first, second = scale_factors.factors(norms, limits, partial(shrunk, gradients, norms))
        return list(map(_scaled, gradients, list(first), list(second)))

    def shrunk(gradients: list[Gradient], norms: Tensor) -> Tensor:
        return jax.lax.cond(
            jnp.all(floating_point.is_in_range(norms)),
            lambda: norms,
            lambda: jnp.stack(
                [_shrunk_norm([g], n, 2.0) for g, n in zip(gradients, list(norms), strict=True)]
            ),
        )

    idle = jnp.all(scale_factors.needs_no_clip(norms, limits))
    return _scaled_unless(idle, scaled, gradients, norms, limits, in_loop)


def _shrunk_norm(gradients: list[Gradient], norm: Tensor, norm_type: float) -> Tensor:
    # The barriers: see `norms`.
    operands = jax.lax.optimization_barrier([norm_operand(gradient) for gradient in gradients])
    settled = jax.lax.optimization_barrier
    if keras.distribution.distribution() is None and not any(map(jnp.iscomplexobj, operands)):
        operands = small_ones_joined(operands, norm.dtype.name)
    return floating_point.shrunk_norm(operands, norm, norm_type, settled)


def _scaled_unless(
    idle: Tensor,
    scaled: _Scale,
    gradients: list[Gradient],
    norms: Tensor,
    limits: Tensor,
    in_loop: bool,
) -> list[Gradient]:
    """Return the same bits of `gradients` if `idle`, else the scaled gradients.

    Neither is fused into the update. Otherwise XLA would round the update differently, and an
    idle step of Adam would differ from the bare one in the last bit.
    """
    return control_flow.change_if(~idle, scaled, gradients, norms, limits, in_loop=in_loop)


def _scaled(gradient: Gradient, first: Tensor, second: Tensor) -> Gradient:
    def multiply(values: Tensor) -> Tensor:
        wide = values.astype(jnp.float32) if floating_point.is_half(values) else values
        return (wide * first * second).astype(values.dtype)

    return map_values(gradient, multiply)


# Outside `jit`, every call of `cond` would compile both branches again.
_compiled_scale_to_norm = jax.jit(_scale_to_norm, static_argnums=(3, 4))
_compiled_scale_each_to_norm = jax.jit(_scale_each_to_norm, static_argnums=3)
