"""Dense, sparse and sharded gradients on torch."""

from collections.abc import Callable
from typing import Any

import torch
from keras import ops

from keras_clip._seam.torch.shards import map_shards, whole
from keras_clip.types import Gradient, Tensor


def as_gradient(value: Any) -> Gradient:
    """Convert to a tensor."""
    return value if isinstance(value, torch.Tensor) else ops.convert_to_tensor(value)


def is_sparse(gradient: Gradient) -> bool:
    """Return whether it is a sparse tensor."""
    return bool(gradient.is_sparse)


def values(gradient: Gradient) -> Tensor:
    """Return the tensor, whole if it is sharded, or the coalesced values of a sparse one."""
    return gradient.coalesce().values() if is_sparse(gradient) else whole(gradient)


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the tensor, its shard, or the coalesced values of a sparse one."""
    if not is_sparse(gradient):
        return map_shards(gradient, function)
    distinct = gradient.coalesce()
    return torch.sparse_coo_tensor(
        distinct.indices(), function(distinct.values()), distinct.shape, is_coalesced=True
    )


def norm_operand(gradient: Gradient) -> Tensor:
    """Return the values, with repeated entries of a sparse tensor summed."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient
