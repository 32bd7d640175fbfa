"""torch's DTensor: one logical tensor, of which each process holds a shard."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from keras_clip.types import Gradient, Tensor

_NO_SHARDED = (
    "This clipper compares parts of a gradient with parts of a variable. It cannot do so for a "
    "torch DTensor, whose parts may lie on several processes. Clip by norm or by value instead."
)

# Looked up, not imported: nobody has a DTensor before it is loaded, and loading it takes time.
_MODULE = "torch.distributed.tensor"


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor."""
    return isinstance(tensor, sharded_types())


def sharded_types() -> tuple[type, ...]:
    """DTensor if there can be any; to be asked once for a list of tensors."""
    module = sys.modules.get(_MODULE)
    return () if module is None else (module.DTensor,)


def any_sharded(tensors: Sequence[Any]) -> bool:
    """Whether any is a DTensor, at the cost of a question for each type of them."""
    return any(issubclass(kind, sharded_types()) for kind in set(map(type, tensors)))


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor, or all of a DTensor, on each process."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return the tensor, or what this process holds of a DTensor."""
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
    """Put for each DTensor a vector with the same norm: that of the norms of its shards.

    Every process gets all of the vector, and so takes the same decisions. What is exchanged is
    one number a shard, for all DTensors that are sharded alike together.

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
    """Add up what processes hold as terms of a sum: the norm of a term says nothing."""
    if not any(placement.is_partial() for placement in tensor.placements):
        return tensor
    return tensor.redistribute(
        placements=[_replicate() if p.is_partial() else p for p in tensor.placements]
    )


def _split_dimensions(tensor: Tensor) -> tuple[bool, ...]:
    """For each dimension of the mesh, whether the tensor differs along it."""
    return tuple(not placement.is_replicate() for placement in tensor.placements)


def _gathered(row: Tensor, dtensor: Any, mesh: Any, split: tuple[bool, ...]) -> Tensor:
    """Rows of all processes that hold different shards, one below the other."""
    placements = [_shard_rows() if is_split else _replicate() for is_split in split]
    rows = dtensor.from_local(row.reshape(1, -1), mesh, placements, run_check=False)
    gathered: Tensor = rows.full_tensor()
    return gathered


def _replicate() -> Any:
    return sys.modules[_MODULE].Replicate()


def _shard_rows() -> Any:
    return sys.modules[_MODULE].Shard(0)
