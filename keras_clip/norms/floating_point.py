"""The hazards of a norm in floating point; each function removes one and names it.

The code uses `keras.ops` only, so the same lines run on every backend, traced or not. It uses
operators, because `ops.multiply` and the like turn float64 into float32 on torch. A Python number
stands beside an operator or in `scalar`: Keras's functions copy it to the device, and torch waits.
"""

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_clip.types import Tensor

# Below this sum, squares of single entries may have been flushed to zero. Each flush loses less
# than the smallest normal number: above this sum, even 1e10 of them vanish in rounding.
_SMALLEST_ORDINARY_SUM = {"float32": 1e-20, "float64": 1e-290}

# Processors may flush numbers below this one to zero.
_SMALLEST_NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}

# The largest finite number; a norm above the range is reported as it.
LARGEST = {"float32": 2.0**128 - 2.0**104, "float64": sys.float_info.max}

# A power of two, so that multiplying by it is exact.
_SHRINKING_FACTOR = {"float32": 2.0**-120, "float64": 2.0**-1000}


def scalar(number: float, dtype: str) -> Tensor:
    """Hazard: Keras rounds a Python float to float32 on its way to float64."""
    return ops.zeros((), dtype=dtype) + number


def as_dtype(number: Tensor, dtype: Any) -> Tensor:
    """Hazard: TensorFlow computes with one dtype only. On torch, even an idle cast takes time."""
    dtype = keras.backend.standardize_dtype(dtype)
    return number if str(number.dtype).endswith(dtype) else ops.cast(number, dtype)


def accumulation_dtype(tensors: Iterable[Tensor]) -> str:
    """Hazard: half precision overflows at 256 squared, and dtypes may mix."""
    # Only distinct dtypes: Keras takes a microsecond to name one.
    dtypes = {tensor.dtype for tensor in tensors}
    names = {keras.backend.standardize_dtype(dtype) for dtype in dtypes}
    return "float64" if names & {"float64", "complex128"} else "float32"


def magnitudes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Hazard: a cast to float drops the imaginary part, and a complex square is not a length."""
    # Only distinct dtypes: see `accumulation_dtype`.
    found = {dtype for dtype in {tensor.dtype for tensor in tensors} if _is_complex_dtype(dtype)}
    return [ops.abs(t) if t.dtype in found else t for t in tensors] if found else list(tensors)


def is_complex(tensor: Tensor) -> bool:
    """Hazard: see `magnitudes`."""
    return _is_complex_dtype(tensor.dtype)


def _is_complex_dtype(dtype: Any) -> bool:
    return str(keras.backend.standardize_dtype(dtype)).startswith("complex")


def is_half(tensor: Tensor) -> bool:
    """Hazard: a factor such as 1e-6 is zero in half precision."""
    return keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16")


def widened(tensor: Tensor) -> Tensor:
    """Hazard: a norm in half precision is too coarse to divide by."""
    return ops.cast(tensor, "float32") if is_half(tensor) else tensor


def differences(now: Iterable[Tensor], before: Iterable[Tensor]) -> list[Tensor]:
    """Hazard: see `widened` and `magnitudes`."""
    pairs = zip(now, before, strict=True)
    return magnitudes([widened(value) - widened(old) for value, old in pairs])


def is_ordinary(sum_of_squares: Tensor) -> Tensor:
    """Hazard: squares overflow from 1.8e19 and underflow below 1e-19 in float32."""
    dtype = keras.backend.standardize_dtype(sum_of_squares.dtype)
    large_enough = sum_of_squares >= _SMALLEST_ORDINARY_SUM[dtype]
    return ops.logical_and(large_enough, ops.isfinite(sum_of_squares))


def root(square: Tensor) -> Tensor:
    """Hazard: the derivative of a root is infinite at 0; for a norm it is defined as 0."""
    is_zero = square == 0
    positive = ops.where(is_zero, ops.ones_like(square), square)
    return ops.where(is_zero, ops.zeros_like(square), ops.sqrt(positive))


def rescaled_norm(
    values: Sequence[Tensor], settled: Callable[[Tensor], Tensor] = lambda tensor: tensor
) -> Tensor:
    """Norm of `values`, which are divided by their largest entry before they are squared.

    It needs a second pass over the gradients, so use it only for sums that are not ordinary.
    `settled` may be a barrier that keeps a compiler from mixing the sums of each with that of all.
    """
    dtype = accumulation_dtype(values)
    wide = [ops.cast(v, dtype) for v in values]
    largest = ops.max(settled(ops.stack([_largest_magnitude(v) for v in wide])))
    divisor = usable_divisor(largest)
    squares = [ops.sum(ops.square(v / divisor)) for v in wide]
    return saturated(root(ops.sum(settled(ops.stack(squares)))) * divisor, largest)


def rescaled_norms(values: Sequence[Tensor], dtype: str) -> Tensor:
    """Norm of each of `values` by itself, rescaled in the same way."""
    return ops.stack([ops.cast(rescaled_norm([value]), dtype) for value in values])


def rescaled_unit_norms(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Norms over `axes`, which keep length 1; each norm is rescaled by itself."""
    if not axes:
        return ops.abs(value)
    largest = ops.max(ops.abs(value), axis=axes, keepdims=True)
    divisor = usable_divisor(largest)
    squares = ops.sum(ops.square(value / divisor), axis=axes, keepdims=True)
    return saturated(root(squares) * divisor, largest)


def p_norm(values: Sequence[Tensor], p: float) -> Tensor:
    """`(sum |x| ** p) ** (1 / p)` over all entries, or `max |x|` for p infinity."""
    dtype = accumulation_dtype(values)
    wide = [ops.cast(v, dtype) for v in values]
    largest = ops.max(ops.stack([_largest_magnitude(v) for v in wide]))
    if math.isinf(p):
        # A maximum may ignore a NaN. This sum is NaN with one, and 0 otherwise.
        nans = [ops.sum(ops.where(ops.isnan(v), v, ops.zeros_like(v))) for v in wide]
        return largest + ops.sum(ops.stack(nans))
    divisor = usable_divisor(largest)
    powers = [ops.sum(ops.abs(v / divisor) ** p) for v in wide]
    total = ops.sum(ops.stack(powers))
    # The derivative of the root is infinite at 0: see `root`.
    is_zero = total == 0
    positive = ops.where(is_zero, ops.ones_like(total), total)
    norm = ops.where(is_zero, ops.zeros_like(total), positive ** (1.0 / p))
    return saturated(norm * divisor, largest)


def shrunk_norm(
    values: Sequence[Tensor],
    norm: Tensor,
    p: float = 2.0,
    settled: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Tensor:
    """Norm of `values` times `shrinkage(norm)`, where `norm` is theirs if the type holds it."""
    shrunk = [_shrunk(value, shrinkage(norm)) for value in values]
    if p != 2.0:
        return p_norm(shrunk, p)
    return root(ops.sum(settled(ops.stack([ops.sum(ops.square(v)) for v in shrunk]))))


def _shrunk(value: Tensor, factor: Tensor) -> Tensor:
    dtype = keras.backend.standardize_dtype(factor.dtype)
    if not is_complex(value):
        return ops.cast(value, dtype) * factor
    wide = "complex64" if dtype == "float32" else "complex128"
    return ops.abs(ops.cast(value, wide) * ops.cast(factor, wide))


def shrinkage(norm: Tensor) -> Tensor:
    """Return `shrinking_factor` where `norm` is not in range, else 1.

    Hazard: XLA moves a constant factor out of a square, which then overflows.
    """
    one = ops.ones_like(norm)
    factor = shrinking_factor(keras.backend.standardize_dtype(norm.dtype))
    return ops.where(is_in_range(norm), one, one * factor)


def shrinking_factor(dtype: str) -> float:
    """Power of two that brings every finite entry, and any norm of entries, into the range."""
    return _SHRINKING_FACTOR[dtype]


def saturated(norm: Tensor, largest: Tensor) -> Tensor:
    """Hazard: the norm of finite entries may overflow; it then becomes the largest number.

    An infinite norm therefore means an infinite entry. `largest` is the largest magnitude.
    """
    maximum = LARGEST[keras.backend.standardize_dtype(norm.dtype)]
    overflowed = ops.logical_and(ops.isinf(norm), ops.isfinite(largest))
    return ops.where(overflowed, ops.zeros_like(norm) + maximum, norm)


def is_in_range(norm: Tensor) -> Tensor:
    """Whether the type holds the norm: it is neither NaN, nor infinite, nor `saturated`."""
    return norm < LARGEST[keras.backend.standardize_dtype(norm.dtype)]


def usable_divisor(largest: Tensor) -> Tensor:
    """Hazard: a divisor must not be zero, infinite, or flushed to zero.

    Its reciprocal must not be flushed to zero either, because XLA may multiply by it.

    A NaN stays in the sum for any divisor. The divisor is constant to derivatives, because the
    norm does not depend on it.
    """
    largest = ops.stop_gradient(largest)
    smallest = _SMALLEST_NORMAL[keras.backend.standardize_dtype(largest.dtype)]
    usable = ops.logical_and(ops.isfinite(largest), largest >= smallest)
    one = ops.ones_like(largest)
    at_most = ops.where(largest * smallest < 1.0, largest, one / smallest)
    return ops.where(usable, at_most, one)


def _largest_magnitude(value: Tensor) -> Tensor:
    size = _known_size(value)
    if size is None:
        # Slices may have no rows at run time.
        return ops.max(ops.abs(value), initial=0.0)
    return ops.max(ops.abs(value)) if size else ops.sum(value)


def _known_size(value: Tensor) -> int | None:
    # In a TensorFlow graph the rank may be unknown, and the shape then has no length.
    try:
        shape = tuple(value.shape)
    except ValueError:
        return None
    return None if None in shape else math.prod(shape)


def between(start: Tensor, end: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
    """Hazard: at a share of 1, `start + (end - start)` differs from `end` in its last bits.

    The share is `coarse * fine`, a product that may be flushed to zero.
    """
    wide_start = widened(start)
    change = widened(end) - wide_start
    coarse, fine = as_dtype(coarse, change.dtype), as_dtype(fine, change.dtype)
    # TensorFlow would multiply the factors first, if one product followed the other.
    change = ops.where(coarse < 1.0, coarse * change, change)
    moved = ops.cast(wide_start + fine * change, end.dtype)
    return ops.where(coarse * fine < 1.0, moved, end)


def clamped(value: Tensor, bound: Tensor) -> Tensor:
    """Limit entries to `[-bound, bound]`; a NaN stays.

    `ops.clip` is not used: on torch it computes in float32 for every dtype.
    """
    return ops.where(value > bound, bound, ops.where(value < -bound, -bound, value))
