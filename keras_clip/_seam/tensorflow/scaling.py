"""The clip, given the norm, on TensorFlow."""

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip._seam.tensorflow.gradients import map_values, widened
from keras_clip._seam.tensorflow.stacks import stacks_of
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor


def scale_to_norm(gradients: Gradients, norm: Tensor, max_norm: Tensor) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    scale = graphs.compiled_if_eager(_scale_to_norm, _compiled_scale_to_norm)
    return list(scale(list(gradients), norm, max_norm))


def _scale_to_norm(gradients: list[Gradient], norm: Tensor, max_norm: Tensor) -> list[Gradient]:
    stacks = stacks_of(gradients)
    return stacks.split(_scale_joined_to_norm(stacks.joined(gradients), norm, max_norm))


def _scale_joined_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor
) -> list[Gradient]:
    first, second = floating_point.two_factors(norm, max_norm)
    one_or_two = tf.where(first < 1.0, 2, 1)
    # One choice of three rather than one within another: tracing takes time for each gradient
    # that goes into a branch and comes out.
    scaled: list[Gradient] = tf.switch_case(
        tf.where(floating_point.needs_no_clip(norm, max_norm), 0, one_or_two),
        [
            lambda: gradients,
            lambda: _cast_like(_multiplied(_all_widened(gradients), second), gradients),
            lambda: graphs.as_one_node(_scaled_in_two)(gradients, first, second),
        ],
    )
    return scaled


def _scaled_in_two(gradients: list[Gradient], first: Tensor, second: Tensor) -> list[Gradient]:
    # Of two products TensorFlow's graph optimizer would make one with the product of both
    # factors. The first is a power of two, so that to divide by its inverse is the same.
    scaled = _multiplied(_divided(_all_widened(gradients), 1.0 / first), second)
    return _cast_like(scaled, gradients)


def scale_each_to_norm(gradients: Gradients, norms: Tensor, limits: Tensor) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    scale = graphs.compiled_if_eager(_scale_each_to_norm, _compiled_scale_each_to_norm)
    return list(scale(list(gradients), norms, limits))


def _scale_each_to_norm(gradients: list[Gradient], norms: Tensor, limits: Tensor) -> list[Gradient]:
    untouched = floating_point.needs_no_clip(norms, limits)
    scaled: list[Gradient] = tf.cond(
        tf.reduce_all(untouched),
        lambda: gradients,
        lambda: _scaled_each(gradients, *floating_point.factors(norms, limits)),
    )
    return scaled


def _scaled_each(gradients: list[Gradient], first: Tensor, second: Tensor) -> list[Gradient]:
    wide = _all_widened(gradients)
    wide = tf.cond(tf.reduce_any(first < 1.0), lambda: _multiplied_each(wide, first), lambda: wide)
    return _cast_like(_multiplied_each(wide, second), gradients)


def _multiplied_each(gradients: list[Gradient], factors: Tensor) -> list[Gradient]:
    each = zip(gradients, tf.unstack(factors, num=len(gradients)), strict=True)
    return [_multiplied([gradient], factor)[0] for gradient, factor in each]


def _multiplied(gradients: list[Gradient], factor: Tensor) -> list[Gradient]:
    def multiply(values: Tensor) -> Tensor:
        return values * tf.cast(factor, values.dtype)

    return [map_values(gradient, multiply) for gradient in gradients]


def _divided(gradients: list[Gradient], divisor: Tensor) -> list[Gradient]:
    def divide(values: Tensor) -> Tensor:
        return values / tf.cast(divisor, values.dtype)

    return [map_values(gradient, divide) for gradient in gradients]


def _cast_like(gradients: list[Gradient], originals: list[Gradient]) -> list[Gradient]:
    def cast(gradient: Gradient, dtype: tf.DType) -> Gradient:
        return map_values(gradient, lambda values: tf.cast(values, dtype))

    return [cast(gradient, o.dtype) for gradient, o in zip(gradients, originals, strict=True)]


def _all_widened(gradients: list[Gradient]) -> list[Gradient]:
    return [map_values(gradient, widened) for gradient in gradients]


_compiled_scale_to_norm = graphs.traced(_scale_to_norm)
_compiled_scale_each_to_norm = graphs.traced(_scale_each_to_norm)
