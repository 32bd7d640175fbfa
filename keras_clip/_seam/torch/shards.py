"""torch's DTensor: a logical tensor with a shard in each process."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from keras_clip.types import Gradient, Tensor

_NO_SHARDED = (
    "This clipper compares parts of a gradient with parts of a variable. It cannot do so for a "
    "torch DTensor, whose parts may lie on several processes. Clip by norm or by value instead."
)

# Looked up, not imported: the import takes time, and no DTensor exists before it.
_MODULE = "torch.distributed.tensor"


def is_sharded(tensor: Any) -> bool:
    """Return whether it is a DTensor."""
    return isinstance(tensor, sharded_types())


def sharded_types() -> tuple[type, ...]:
    """Return the class DTensor if it is loaded; call it once for a list of tensors."""
    module = sys.modules.get(_MODULE)
    return () if module is None else (module.DTensor,)


def any_sharded(tensors: Sequence[Any]) -> bool:
    """Return whether any tensor is a DTensor, with one check for each type."""
    return any(issubclass(kind, sharded_types()) for kind in set(map(type, tensors)))


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor, or the whole of a DTensor, on each process."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return the tensor, or the local shard of a DTensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def map_shards(tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `function`, which has to be elementwise, to the tensor or to each shard."""
    if not is_sharded(tensor):
        return function(tensor)
    summed = _summed(tensor)
    return type(tensor).from_local(
        function(summed.to_local()),
        summed.device_mesh,
        summed.placements,
        run_check=False,
        shape=summed.shape,
        stride=summed.stride(),
    )


def with_norms_for_shards(
    operands: Sequence[Tensor], norms: Callable[[list[Tensor]], Tensor]
) -> list[Tensor]:
    """Replace each DTensor by a vector with the same norm: the norms of its shards.

    Every process gets the whole vector and therefore takes the same decisions. The processes
    exchange one number for each shard, together for all DTensors with the same sharding.

    Args:
        operands: tensors.
        norms: a function that returns the norm of each tensor of a list, as one vector.
    """
    plain = list(operands)
    if not any_sharded(operands):
        return plain
    groups: dict[Any, list[int]] = {}
    sharded = sharded_types()
    for position, operand in enumerate(operands):
        if isinstance(operand, sharded):
            plain[position] = _summed(operand)
            key = (plain[position].device_mesh, _split_dimensions(plain[position]))
            groups.setdefault(key, []).append(position)
    for (mesh, split), positions in groups.items():
        own = norms([plain[position].to_local() for position in positions])
        everyones = _gathered(own, type(operands[positions[0]]), mesh, split)
        for column, position in enumerate(positions):
            plain[position] = everyones[:, column]
    return plain


def refuse_sharded(tensors: Sequence[Gradient]) -> None:
    """Raise if any is a DTensor."""
    if any(is_sharded(tensor) for tensor in tensors):
        raise TypeError(_NO_SHARDED)


def _summed(tensor: Tensor) -> Tensor:
    """Sum a DTensor that is stored as terms of a sum: the norm of a term means nothing."""
    if not any(placement.is_partial() for placement in tensor.placements):
        return tensor
    return tensor.redistribute(
        placements=[_replicate() if p.is_partial() else p for p in tensor.placements]
    )


def _split_dimensions(tensor: Tensor) -> tuple[bool, ...]:
    """Return for each dimension of the mesh whether the tensor differs along it."""
    return tuple(not placement.is_replicate() for placement in tensor.placements)


def _gathered(row: Tensor, dtensor: Any, mesh: Any, split: tuple[bool, ...]) -> Tensor:
    """Return the rows of all processes with different shards, one below the other."""
    placements = [_shard_rows() if is_split else _replicate() for is_split in split]
    rows = dtensor.from_local(row.reshape(1, -1), mesh, placements, run_check=False)
    gathered: Tensor = rows.full_tensor()
    return gathered


def _replicate() -> Any:
    return sys.modules[_MODULE].Replicate()


def _shard_rows() -> Any:
    return sys.modules[_MODULE].Shard(0)
