"""Norms on torch."""

from collections.abc import Sequence

import torch

from keras_clip._seam.torch import cpu_norms, host
from keras_clip._seam.torch.shards import with_norms_for_shards
from keras_clip.norms import floating_point
from keras_clip.types import Tensor

# Below these norms, squares may have underflowed: the roots of `floating_point`'s smallest sums.
_SMALLEST_ORDINARY_NORM = {torch.float32: 1e-10, torch.float64: 1e-145}


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the root of the sum of squares, for any magnitude."""
    accumulate = getattr(torch, dtype)
    operands = _unsharded(operands, dtype)
    if host.can_read(operands[0]):
        norm = cpu_norms.norm(operands, accumulate)
        ordinary = is_ordinary(float(norm.detach()), accumulate)
        return norm if ordinary else floating_point.rescaled_norm(operands)
    if accumulate is torch.float64 or operands[0].device.type == "mps":
        # float64 has no wider dtype for the sum, and MPS has no float64.
        return floating_point.rescaled_norm(operands)
    # In float64, no square of a float32 leaves the range, so no decision is needed.
    norm = _stacked_norm(torch._foreach_norm(list(operands), 2, dtype=torch.float64))
    return floating_point.saturated(norm.to(accumulate), norm)


def is_ordinary(norm: float, dtype: torch.dtype) -> bool:
    """Return whether no square of a norm leaves the range of the type."""
    return _SMALLEST_ORDINARY_NORM[dtype] <= norm < float("inf")


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the norm of each operand; all are rescaled if any squares leave the range."""
    accumulate = getattr(torch, dtype)
    operands = _unsharded(operands, dtype)
    if not host.can_read(operands[0]):
        if accumulate is torch.float64 or operands[0].device.type == "mps":
            return floating_point.rescaled_norms(operands, dtype)
        device = operands[0].device
        each = torch._foreach_norm(list(operands), 2, dtype=torch.float64)
        wide = torch.stack([norm.to(device) for norm in each])
        return floating_point.saturated(wide.to(accumulate), wide)
    combined = cpu_norms.norms(operands, accumulate)
    smallest, largest = _SMALLEST_ORDINARY_NORM[accumulate], float("inf")
    if bool(((combined >= smallest) & (combined < largest)).all()):
        return combined
    return floating_point.rescaled_norms(operands, dtype)


def _unsharded(operands: Sequence[Tensor], dtype: str) -> list[Tensor]:
    return with_norms_for_shards(operands, lambda shards: norms(shards, dtype))


def _stacked_norm(norms: Sequence[Tensor]) -> Tensor:
    # If layers are placed on several devices, use the device of the first.
    device = norms[0].device
    return torch.linalg.vector_norm(
        torch.stack([norm.to(device) for norm in norms]), dtype=torch.float64
    )
