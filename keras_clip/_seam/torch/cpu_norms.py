"""CPU norms on torch: few calls, all threads, short accurate sums.

For the norm of a whole tensor, torch adds squares in one thread, one after another, in float32: for
33 million entries it is off by 2e-3 (measured). For the norms of a matrix's rows it uses all
threads, and each row is short. A call takes a microsecond for a tensor of any size.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch

from keras_clip.types import Tensor

# From this many entries, two threads are faster than one, including the time to wake the second.
_FEWEST_IN_ROWS = 2**16

# Length of a row: shorter rows cost more calls inside torch, longer rows are less exact.
_SHORTEST_ROW = 2**10
_LONGEST_ROW = 2**15


def norm(operands: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norm over all `operands`, whose squares stay in the range of `dtype`."""
    wide = _as_type(operands, dtype)
    short, long = _by_length(wide)
    parts = [part for position in long for part in _row_norms(wide[position])]
    return _length([*_whole_norms(wide, short), *parts], dtype, operands[0].device)


def norms(operands: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the norm of each of `operands`, as one vector."""
    wide = _as_type(operands, dtype)
    short, long = _by_length(wide)
    device = operands[0].device
    of_rows = [_length(_row_norms(wide[position]), dtype, device)[None] for position in long]
    found = _joined([*_whole_norms(wide, short), *of_rows], device)
    order = [*short, *long]
    if order == sorted(order):
        return found
    return found[torch.tensor(order, device=device).argsort()]


def _as_type(operands: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    # Even a `to` that does nothing takes a microsecond for each variable.
    return [operand if operand.dtype is dtype else operand.to(dtype) for operand in operands]


def _by_length(tensors: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """Return the positions of short and of long tensors."""
    short: list[int] = []
    long: list[int] = []
    for position, tensor in enumerate(tensors):
        (short if tensor.numel() < _FEWEST_IN_ROWS else long).append(position)
    return short, long


def _whole_norms(tensors: Sequence[Tensor], positions: list[int]) -> list[Tensor]:
    """Return one vector with the norms of the tensors at `positions`, or none."""
    if not positions:
        return []
    each = torch._foreach_norm([tensors[position] for position in positions], 2)
    return [torch.stack(_on_device(tensors[0].device, each))]


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
