"""The changes of variables in an update: their norm, and smaller changes."""

from collections.abc import Sequence

import torch

from keras_clip._seam import keras_private
from keras_clip._seam.torch import control_flow, cpu_norms, host
from keras_clip._seam.torch.kinds import by_kind
from keras_clip._seam.torch.norms import global_norm, is_ordinary
from keras_clip._seam.torch.shards import is_sharded, local_part
from keras_clip.norms import floating_point
from keras_clip.types import FactorPair, Tensor, Variable

# A difference of this length, one megabyte, stays in a core's cache. A longer one takes as long to
# store as to compute.
_PART = 2**18

# Of these, all variables are handled in one call. Half precision needs a wider type.
_WIDE = (torch.float32, torch.float64)


def change_norm(now: Sequence[Tensor], before: Sequence[Tensor], dtype: str) -> Tensor:
    """Return the norm of all differences."""
    operands: list[Tensor | None] = [None] * len(now)
    for positions in _handled_at_once(now):
        pairs = ([tensors[place] for place in positions] for tensors in (now, before))
        for place, difference in zip(positions, torch._foreach_sub(*pairs), strict=True):
            operands[place] = difference
    return global_norm(
        [
            _difference_or_norms(now[place], before[place]) if operand is None else operand
            for place, operand in enumerate(operands)
        ],
        dtype,
    )


def shrink_changes(
    variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
) -> None:
    """Assign in place, all at once if `_handled_at_once`, else one after another."""
    values = [variable.value for variable in variables]
    is_own = [
        value is keras_private.tensor_of(variable)
        for value, variable in zip(values, variables, strict=True)
    ]
    alone = set(range(len(values)))
    for handled in _handled_at_once(values):
        positions = [place for place in handled if is_own[place]]
        alone.difference_update(positions)
        own = ([given[place] for place in positions] for given in (values, before, factors))
        _shrink_at_once(*own)
    for place in sorted(alone):
        coarse, fine = (host.on(values[place].device, factor) for factor in factors[place])
        if control_flow.is_known_to_hold(coarse * fine >= 1.0):
            continue
        part, old = local_part(values[place]), local_part(before[place])
        if is_own[place]:
            _shrink_in_place(part, old, coarse, fine)
        else:
            variables[place].assign(floating_point.between(old, part, coarse, fine))


def _handled_at_once(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return groups of positions of tensors that one call can handle.

    None of those on a processor: there a long list would leave the cache between two calls. None
    while operations are recorded for differentiation.
    """
    if torch.is_grad_enabled() or host.can_read(tensors[0]):
        return []
    kinds = by_kind(tensors).items()
    return [positions for kind, positions in kinds if kind is not None and kind[1] in _WIDE]


def _shrink_at_once(values: list[Tensor], before: list[Tensor], factors: list[FactorPair]) -> None:
    if not values:
        return
    # The variables of a group share their factors.
    pairs = {id(pair): _on_device_of(values[0], pair) for pair in factors}
    is_less = {key: coarse * fine < 1.0 for key, (coarse, fine) in pairs.items()}
    moved = torch._foreach_sub(values, before)
    for which in (0, 1):
        own = [pairs[id(pair)][which] for pair in factors]
        torch._foreach_mul_(moved, own[0] if len(pairs) == 1 else own)
    torch._foreach_add_(moved, before)
    for value, target, pair in zip(values, moved, factors, strict=True):
        torch.where(is_less[id(pair)], target, value, out=value)


def _on_device_of(value: Tensor, factors: FactorPair) -> FactorPair:
    coarse, fine = (host.on(value.device, factor).to(value.dtype) for factor in factors)
    return coarse, fine


def _shrink_in_place(value: Tensor, old: Tensor, coarse: Tensor, fine: Tensor) -> None:
    # `out=` cannot be recorded for differentiation, and infinity times 0 would be NaN.
    may_overwrite = host.can_read(fine) and not torch.is_grad_enabled()
    if may_overwrite and value.dtype is fine.dtype:
        for factor in (coarse, fine):
            if bool(factor < 1.0):
                torch.lerp(old, value, factor, out=value)
    else:
        value.copy_(floating_point.between(old, value, coarse, fine))


def _difference_or_norms(now: Tensor, before: Tensor) -> Tensor:
    """Return the difference, or a shorter vector of the norms of its parts if it is long."""
    if host.can_read(now) and now.numel() > _PART and not is_sharded(now):
        parts = zip(now.reshape(-1).split(_PART), before.reshape(-1).split(_PART), strict=True)
        norms = torch.stack([_norm_of_difference(*part) for part in parts])
        if is_ordinary(float(norms.detach().norm()), norms.dtype):
            return norms
    return floating_point.differences([now], [before])[0]


def _norm_of_difference(now: Tensor, before: Tensor) -> Tensor:
    difference = floating_point.differences([now], [before])
    return cpu_norms.norm(difference, difference[0].dtype)
