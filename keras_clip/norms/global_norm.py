"""The global norm of a list of gradients and the clip by it, usable without an optimizer."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.thresholds import check_number, is_number
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor, Variable


def global_norm(gradients: Gradients) -> Tensor:
    """Euclidean norm of all entries of all gradients together.

    `global_norm(g) = sqrt(sum_i sum_j g_i[j] ** 2)`

    The norm is right whenever the returned dtype can hold it. float16 and bfloat16 are summed in
    float32. Squares that would overflow or underflow are rescaled first. Repeated rows of a
    `tf.IndexedSlices` are summed first. Dtypes may mix. A complex entry counts by its absolute
    value. A norm above the range, 3.4e38 for float32, is reported as the largest number. Infinity
    therefore means that an entry is infinite.

    Args:
        gradients: list or tuple of tensors of any shape and floating or complex dtype, of
            `tf.IndexedSlices`, and of `None`, which is ignored.

    Returns:
        Scalar tensor on the device, float64 if any gradient is float64 or complex128, else
        float32. 0 for an empty list. Infinity or NaN if the gradients hold one.

    Raises:
        TypeError: `gradients` is a single tensor or not a sequence.

    Reference:
        `tf.linalg.global_norm`, which does not sum repeated rows of an IndexedSlices,
        overflows from 1.8e19 and refuses mixed dtypes.

    Example:
        >>> import keras, keras_clip
        >>> gradients = [keras.ops.array([3.0, 0.0]), None, keras.ops.array([[4.0]])]
        >>> float(keras_clip.global_norm(gradients))
        5.0
    """
    present = [g for g in as_gradients(gradients) if g is not None]
    return norm_of_tensors(present)


def clip_by_global_norm(
    gradients: Gradients, max_norm: float | Tensor
) -> tuple[list[Gradient], Tensor]:
    """Scale all gradients by one factor, so that their global norm is at most `max_norm`.

    `clipped_i = g_i * min(1, max_norm / global_norm(g))`

    Gradients at or below the threshold return bit for bit. `max_norm=0` gives zeros, and
    `max_norm=float("inf")` changes nothing. If an entry is infinite or NaN, all clipped gradients
    are NaN, as with `tf.clip_by_global_norm`. Finite gradients of any norm are clipped to
    `max_norm`.

    Args:
        gradients: as for `global_norm`.
        max_norm: number, at least 0, in units of the gradients' norm; or a scalar tensor,
            whose value is not checked: a negative one counts as 0.

    Returns:
        The list of clipped gradients, each with its shape, dtype and kind, and `None` in place
        of `None`; and the global norm before clipping, a scalar tensor.

    Raises:
        TypeError: `gradients` is a single tensor, or `max_norm` is neither a number nor a tensor.
        ValueError: `max_norm` is negative or NaN.

    Reference:
        Pascanu, Mikolov, Bengio 2013, "On the difficulty of training recurrent neural
        networks", arXiv 1211.5063; `tf.clip_by_global_norm`. Deviations: the norm (see
        `global_norm`), and exact results at or below the threshold. torch's `clip_grad_norm_`
        divides by `norm + 1e-6`; here there is no epsilon.

    Example:
        >>> import keras, keras_clip
        >>> gradients = [keras.ops.array([3.0, 0.0]), None, keras.ops.array([[4.0]])]
        >>> clipped, norm = keras_clip.clip_by_global_norm(gradients, max_norm=1.0)
        >>> clipped[1] is None
        True
        >>> float(keras.ops.max(clipped[2])) == float(keras.ops.cast(0.8, "float32"))
        True
        >>> float(norm)
        5.0
    """
    if isinstance(max_norm, keras.Variable):
        max_norm = max_norm.value
    if not ops.is_tensor(max_norm):
        max_norm = check_number("max_norm", max_norm, "a number that is at least 0, or a tensor")
    listed = as_gradients(gradients)
    present = [g for g in listed if g is not None]
    norm = norm_of_tensors(present)
    clipped = iter(scale_to_norm(present, norm, max_norm))
    return [g if g is None else next(clipped) for g in listed], norm


def norm_of_tensors(gradients: Gradients, norm_type: float = 2.0) -> Tensor:
    """Return the global norm, or another p-norm, of gradients that are all tensors."""
    operands = _operands(gradients)
    dtype = floating_point.accumulation_dtype(operands)
    nonempty = [operand for operand in operands if not _is_known_to_be_empty(operand)]
    if not nonempty:
        return ops.zeros((), dtype=dtype)
    if norm_type != 2.0:
        return floating_point.p_norm([backend.values(operand) for operand in nonempty], norm_type)
    return backend.global_norm(nonempty, dtype)


def norm_of_change(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """Return the global norm of the differences `now - before`."""
    dtype = floating_point.accumulation_dtype(before)
    held = [place for place, tensor in enumerate(before) if not _is_known_to_be_empty(tensor)]
    if not held:
        return ops.zeros((), dtype=dtype)
    return backend.change_norm([now[place] for place in held], [before[p] for p in held], dtype)


def _operands(gradients: Gradients) -> list[Tensor]:
    """Return dense real tensors with the norms of `gradients`."""
    return floating_point.magnitudes([backend.norm_operand(gradient) for gradient in gradients])


def norms_of_tensors(gradients: Gradients) -> Tensor:
    """Return the norm of each gradient by itself, as one vector."""
    operands = _operands(gradients)
    dtype = floating_point.accumulation_dtype(operands)
    empty = [_is_known_to_be_empty(operand) for operand in operands]
    if not all(empty):
        nonempty = [o for o, is_empty in zip(operands, empty, strict=True) if not is_empty]
        norms = backend.norms(nonempty, dtype)
    if not any(empty):
        return norms
    known = iter(ops.unstack(norms) if not all(empty) else ())
    zero = ops.zeros((), dtype=dtype)
    return ops.stack([zero if is_empty else next(known) for is_empty in empty])


def scale_to_norm(
    gradients: Gradients,
    norm: Tensor,
    max_norm: float | Tensor,
    overwritable: Sequence[Variable] = (),
    norm_type: float = 2.0,
) -> list[Gradient]:
    """Clip gradients whose `norm_type`-norm is `norm`.

    If `overwritable` holds their variables, torch may scale each `.grad` in place.
    """
    if not gradients or (is_number(max_norm) and max_norm == math.inf):
        return list(gradients)
    norm = floating_point.widened(norm)
    threshold = _as_scalar(max_norm, _dtype(norm))
    # A negative threshold counts as 0. `ops.maximum` would compute in float32 on torch.
    threshold = ops.relu(threshold)
    return backend.scale_to_norm(gradients, norm, threshold, overwritable, norm_type)


def norm_scaled_to(norm: Tensor, max_norm: Tensor) -> Tensor:
    """Return the norms after a clip of gradients of `norm` to `max_norm`."""
    limit = ops.cast(max_norm, _dtype(norm))
    limit = backend.where(limit < 0, ops.zeros_like(limit), limit)
    clipped = backend.where(norm > limit, limit, norm)
    # An infinite gradient times a factor of 0 is NaN; infinity minus infinity makes it here.
    made_nan = ops.logical_and(ops.isinf(norm), ops.isfinite(limit))
    lost = backend.where(made_nan, norm, ops.zeros_like(norm))
    clipped = backend.where(made_nan, lost - lost, clipped)
    return backend.where(ops.isnan(limit), limit, clipped)


def global_norm_scaled_to(global_norm: Tensor, norms: Tensor, limits: Tensor) -> Tensor:
    """Return the global norm after a clip of each gradient by itself to its limit."""
    scaled = norm_scaled_to(norms, limits)
    # If nothing is clipped, return the same bits: the norm of norms rounds differently.
    combined = ops.cast(norm_of_tensors([scaled]), _dtype(global_norm))
    return backend.where(ops.any(scaled != norms), combined, global_norm)


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable] = ()
) -> list[Gradient]:
    """Clip each gradient by itself: `g_i * min(1, limits_i / norms_i)`, with two vectors."""
    if not gradients:
        return []
    norms = floating_point.widened(norms)
    limits = ops.cast(limits, _dtype(norms))
    limits = backend.where(limits < 0, ops.zeros_like(limits), limits)
    limits = ops.broadcast_to(limits, (len(gradients),))
    return backend.scale_each_to_norm(gradients, norms, limits, overwritable)


def _as_scalar(number: float | Tensor, dtype: str) -> Tensor:
    if is_number(number):
        return floating_point.scalar(number, dtype)
    return ops.cast(number, dtype)


def as_gradients(gradients: Any) -> list[Gradient]:
    """Return `gradients` as a list of tensors of the backend and `None`."""
    if not isinstance(gradients, Sequence) or isinstance(gradients, str):
        raise TypeError(
            "gradients must be a list or tuple with one tensor (or None) per variable. "
            f"Received a {type(gradients).__name__}. Put a single tensor into a list, flatten "
            "a nested structure with keras.tree.flatten."
        )
    return [g if g is None else backend.as_gradient(g) for g in gradients]


def _is_known_to_be_empty(tensor: Tensor) -> bool:
    # In a TensorFlow graph the rank may be unknown, and the shape then has no length.
    try:
        return 0 in tensor.shape
    except ValueError:
        return False


def _dtype(tensor: Tensor) -> str:
    return str(keras.backend.standardize_dtype(tensor.dtype))
