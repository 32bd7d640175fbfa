"""CPU norms on torch: few calls, all threads, short accurate sums.

For the norm of a whole tensor, torch adds squares in one thread, one after another, in float32: for
33 million entries it is off by 2e-3 (measured). For the norms of a matrix's rows it uses all
threads, and each row is short. A call takes a microsecond for a tensor of any size.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

import torch

from keras_clip.types import Tensor

# Tensors of one shape with at most this many entries are stacked: 1,000 of 32 x 32 take a fifth of
# the time. A stack stays small enough for a core's cache.
_LARGEST_STACKED = 2**11
_STACK = 2**18
_FEWEST_STACKED = 4

# From this many entries, two threads are faster than one, including the time to wake the second.
_FEWEST_IN_ROWS = 2**16

# Length of a row: shorter rows cost more calls inside torch, longer rows are less exact.
_SHORTEST_ROW = 2**10
_LONGEST_ROW = 2**15

_device = attrgetter("device")


class _Kinds(NamedTuple):
    """Positions of tensors, by the way to compute their norms."""

    stacks: list[list[int]]
    whole: list[int]
    rows: list[int]


def norm(operands: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norm over all `operands`, whose squares stay in the range of `dtype`."""
    wide = _as_type(operands, dtype)
    kinds = _kinds(wide)
    parts = [part for position in kinds.rows for part in _row_norms(wide[position])]
    return _length([*_norms_of_kinds(wide, kinds), *parts], dtype, operands[0].device)


def norms(operands: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norm of each of `operands`, as one vector."""
    wide = _as_type(operands, dtype)
    kinds = _kinds(wide)
    device = operands[0].device
    of_rows = [_length(_row_norms(wide[position]), dtype, device)[None] for position in kinds.rows]
    found = _joined([*_norms_of_kinds(wide, kinds), *of_rows], device)
    order = [position for group in (*kinds.stacks, kinds.whole, kinds.rows) for position in group]
    if order == sorted(order):
        return found
    return found[torch.tensor(order, device=device).argsort()]


def _as_type(operands: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    # Even a `to` that does nothing takes a microsecond for each variable.
    return [operand if operand.dtype is dtype else operand.to(dtype) for operand in operands]


def _kinds(tensors: Sequence[Tensor]) -> _Kinds:
    by_shape: dict[Hashable, list[int]] = {}
    whole: list[int] = []
    rows: list[int] = []
    for position, tensor in enumerate(tensors):
        entries = tensor.numel()
        # A process may hold no entry of a sharded tensor.
        if 0 < entries <= _LARGEST_STACKED:
            by_shape.setdefault(tensor.shape, []).append(position)
        else:
            (whole if entries < _FEWEST_IN_ROWS else rows).append(position)
    stacks = []
    # Layers may be placed on several devices.
    may_stack = len(tensors) >= _FEWEST_STACKED and len(set(map(_device, tensors))) == 1
    for group in by_shape.values():
        if may_stack and len(group) >= _FEWEST_STACKED:
            each = max(1, _STACK // tensors[group[0]].numel())
            stacks += [group[start : start + each] for start in range(0, len(group), each)]
        else:
            whole += group
    return _Kinds(stacks, whole, rows)


def _norms_of_kinds(tensors: Sequence[Tensor], kinds: _Kinds) -> list[Tensor]:
    """Return the norms of stacked and of single tensors, as one vector for each group."""
    found = []
    for group in kinds.stacks:
        stack = torch.stack([tensors[position] for position in group])
        found.append(torch.linalg.vector_norm(stack.reshape(len(group), -1), dim=1))
    if kinds.whole:
        each = torch._foreach_norm([tensors[position] for position in kinds.whole], 2)
        found.append(torch.stack(_on_device(tensors[0].device, each)))
    return found


def _row_norms(tensor: Tensor) -> list[Tensor]:
    """Return the norms of the rows of a long tensor, and of the remainder."""
    entries = tensor.numel()
    length = _row_length(entries)
    rest = entries % length
    if not rest:
        return [torch.linalg.vector_norm(tensor.reshape(-1, length), dim=1)]
    flat = tensor.reshape(-1)
    rows = flat[: entries - rest].view(-1, length)
    return [torch.linalg.vector_norm(rows, dim=1), torch.linalg.vector_norm(flat[-rest:])[None]]


@lru_cache
def _row_length(entries: int) -> int:
    """Return a row length without a remainder, if a suitable one exists."""
    largest_power_of_two = entries & -entries
    most_rows = 1 << (entries // _SHORTEST_ROW).bit_length() - 1
    length = entries // min(largest_power_of_two, most_rows)
    return length if length <= _LONGEST_ROW else _SHORTEST_ROW


def _length(vectors: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.linalg.vector_norm(_joined(vectors, device), dtype=torch.float64).to(dtype)


def _joined(vectors: Sequence[Tensor], device: torch.device) -> Tensor:
    vectors = _on_device(device, vectors)
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)


def _on_device(device: torch.device, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Bring norms to one device, if layers are placed on several."""
    return [tensor if tensor.device == device else tensor.to(device) for tensor in tensors]
