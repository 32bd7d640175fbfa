"""Groups of tensors that one call of torch can handle."""

from collections.abc import Sequence

import torch

from keras_clip._seam.torch.shards import any_sharded, sharded_types
from keras_clip.types import Tensor

Kind = tuple[torch.device, torch.dtype]


def by_kind(tensors: Sequence[Tensor]) -> dict[Kind | None, list[int]]:
    """Return the positions of each group; the key None holds sparse and sharded tensors."""
    found = {tensor.device for tensor in tensors}, {tensor.dtype for tensor in tensors}
    may_be_alone = any(tensor.is_sparse for tensor in tensors) or any_sharded(tensors)
    if len(found[0]) == len(found[1]) == 1 and not may_be_alone:
        # The usual case: for a thousand tensors the loop below would be slow.
        return {(found[0].pop(), found[1].pop()): list(range(len(tensors)))}
    kinds: dict[Kind | None, list[int]] = {}
    sharded = sharded_types()
    for position, tensor in enumerate(tensors):
        is_alone = tensor.is_sparse or isinstance(tensor, sharded)
        kind = None if is_alone else (tensor.device, tensor.dtype)
        kinds.setdefault(kind, []).append(position)
    return kinds
