"""Decisions about an update on torch."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch

from keras_clip._seam.torch import host
from keras_clip._seam.torch.kinds import by_kind
from keras_clip._seam.torch.shards import is_sharded, refuse_sharded, sharded_types
from keras_clip.types import Tensor, Variable

# For automatic differentiation, torch counts the writes to a tensor.
_writes = attrgetter("_version")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` for whole tensors, uncompiled: torch decides at run time."""

    def run(*arguments: Any) -> Any:
        refuse_sharded(
            [tensor for listed in arguments if isinstance(listed, list) for tensor in listed]
        )
        return function(*arguments)

    return run


def choose(predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]) -> Any:
    """Decide on the host if reading the value is free, else run `general` without asking."""
    return quick() if host.can_read(predicate) and bool(predicate) else general()


def is_known_to_hold(condition: Tensor) -> bool:
    """Return whether the scalar is true and the host can read it for free."""
    return host.can_read(condition) and bool(condition)


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `otherwise(*arguments)` if the scalar is true, else `body(*arguments)`."""
    if host.can_read(condition):
        otherwise(*arguments) if bool(condition) else body(*arguments)
        return
    # Run both and keep one result: reading the condition would stop the device's queue.
    with torch.no_grad():
        tensors = [variable.value for variable in variables]
        instead = copies(tensors)
        changed = _changed_by(partial(otherwise, *arguments), tensors)
        outcomes = {position: tensors[position].clone() for position in changed}
        for position, outcome in outcomes.items():
            tensors[position].copy_(instead[position])
            instead[position] = outcome
        changed |= _changed_by(partial(body, *arguments), tensors)
        for position in changed:
            _assign_where(condition, instead[position], tensors[position])


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy all dense tensors of one kind in one call."""
    copies = list(tensors)
    for kind, positions in by_kind(tensors).items():
        originals = [tensors[position] for position in positions]
        if kind is None:
            made = [tensor.clone() for tensor in originals]
        else:
            made = [torch.empty_like(tensor) for tensor in originals]
            torch._foreach_copy_(made, originals)
        for position, copy in zip(positions, made, strict=True):
            copies[position] = copy
    return copies


def _changed_by(function: Callable[[], None], tensors: Sequence[Tensor]) -> set[int]:
    """Run `function` and return the positions of the tensors that it may have written to."""
    before = _versions(tensors)
    function()
    pairs = enumerate(zip(before, _versions(tensors), strict=True))
    return {place for place, (old, new) in pairs if new is None or new != old}


def _versions(tensors: Sequence[Tensor]) -> list[int | None]:
    """Return the number of writes to each tensor; None if torch does not count them."""
    if torch.compiler.is_compiling():
        return [None] * len(tensors)
    sharded = sharded_types()
    return [None if isinstance(tensor, sharded) else _writes(tensor) for tensor in tensors]


def _assign_where(condition: Tensor, value: Tensor, tensor: Tensor) -> None:
    condition = host.on(tensor.device, condition)
    if is_sharded(tensor):
        tensor.copy_(torch.where(condition, value, tensor))
    else:
        torch.where(condition, value, tensor, out=tensor)
