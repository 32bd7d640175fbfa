"""The clip, given the norm, on TensorFlow."""

import tensorflow as tf

from keras_clip._seam.tensorflow import graphs
from keras_clip._seam.tensorflow.gradients import map_values, norm_operand, widened
from keras_clip._seam.tensorflow.stacks import stacks_of
from keras_clip.norms import floating_point, scale_factors
from keras_clip.types import Gradient, Gradients, Tensor

# `tf.clip_by_global_norm` takes the reciprocals of both norms and multiplies by them.
_LARGEST_TO_DIVIDE_BY = 1e18


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, norm_type: float
) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    scale = graphs.compiled_if_eager(_scale_to_norm, _compiled_scale_to_norm)
    return list(scale(list(gradients), norm, max_norm, norm_type))


def _scale_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, norm_type: float
) -> list[Gradient]:
    stacks = stacks_of(gradients)
    joined = stacks.joined(gradients)
    return stacks.split(_scale_joined_to_norm(joined, norm, max_norm, norm_type))


def _scale_joined_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, norm_type: float
) -> list[Gradient]:
    dtypes = {gradient.dtype for gradient in gradients}
    clip = _clip_by_global_norm if dtypes <= {norm.dtype} else _clip_mixed
    ordinary = (max_norm >= 1.0 / _LARGEST_TO_DIVIDE_BY) & (norm <= _LARGEST_TO_DIVIDE_BY)
    # One choice of three rather than one within another: tracing takes time for each gradient
    # that goes into a branch and comes out.
    scaled: list[Gradient] = tf.switch_case(
        tf.where(scale_factors.needs_no_clip(norm, max_norm), 0, tf.where(ordinary, 1, 2)),
        [
            lambda: gradients,
            lambda: clip(gradients, norm, max_norm),
            lambda: _clip_extreme(gradients, norm, max_norm, norm_type),
        ],
    )
    return scaled


def _clip_by_global_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor
) -> list[Gradient]:
    clipped, _ = tf.clip_by_global_norm(gradients, max_norm, use_norm=norm)
    return list(clipped)


def _clip_mixed(gradients: list[Gradient], norm: Tensor, max_norm: Tensor) -> list[Gradient]:
    """Clip half precision, complex numbers, or several dtypes, which `tf` refuses or rounds."""
    return _cast_like(_multiplied(_all_widened(gradients), max_norm / norm), gradients)


def _clip_extreme(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor, norm_type: float
) -> list[Gradient]:
    """Clip by a norm, or to a norm, whose quotient or reciprocal leaves the range."""

    def shrunk() -> Tensor:
        return tf.cond(
            floating_point.is_in_range(norm),
            lambda: norm,
            lambda: _shrunk_norm(gradients, norm, norm_type),
        )

    first, second = scale_factors.factors(norm, max_norm, shrunk)
    # Of two products TensorFlow's graph optimizer would make one with the product of both
    # factors. The first is a power of two, so that to divide by its inverse is the same.
    scaled = _multiplied(_divided(_all_widened(gradients), 1.0 / first), second)
    return _cast_like(scaled, gradients)


def _shrunk_norm(gradients: list[Gradient], norm: Tensor, norm_type: float = 2.0) -> Tensor:
    operands = [norm_operand(gradient) for gradient in gradients]
    return floating_point.shrunk_norm(operands, norm, norm_type)


def _shrunk_norms(gradients: list[Gradient], norms: Tensor) -> Tensor:
    each = zip(gradients, tf.unstack(norms, num=len(gradients)), strict=True)
    return tf.stack([_shrunk_norm([gradient], norm) for gradient, norm in each])


def scale_each_to_norm(gradients: Gradients, norms: Tensor, limits: Tensor) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    scale = graphs.compiled_if_eager(_scale_each_to_norm, _compiled_scale_each_to_norm)
    return list(scale(list(gradients), norms, limits))


def _scale_each_to_norm(gradients: list[Gradient], norms: Tensor, limits: Tensor) -> list[Gradient]:
    untouched = scale_factors.needs_no_clip(norms, limits)
    scaled: list[Gradient] = tf.cond(
        tf.reduce_all(untouched),
        lambda: gradients,
        lambda: _scaled_each(gradients, norms, limits),
    )
    return scaled


def _scaled_each(gradients: list[Gradient], norms: Tensor, limits: Tensor) -> list[Gradient]:
    def shrunk() -> Tensor:
        return tf.cond(
            tf.reduce_all(floating_point.is_in_range(norms)),
            lambda: norms,
            lambda: _shrunk_norms(gradients, norms),
        )

    first, second = scale_factors.factors(norms, limits, shrunk)
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
