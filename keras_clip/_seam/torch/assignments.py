"""Assignments to variables on torch."""

from collections.abc import Sequence

import torch

from keras_clip._seam import keras_private
from keras_clip._seam.torch import control_flow
from keras_clip._seam.torch.host import on
from keras_clip._seam.torch.shards import local_part, map_shards
from keras_clip.norms import floating_point
from keras_clip.types import Tensor, Variable


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Assign one after another, in place: Keras 3.16 assigns no `DTensor` without its layout."""
    for variable, bound in zip(variables, bounds, strict=True):
        value, is_own = _value_and_whether_own(variable)
        if is_own:
            with torch.no_grad():
                part = local_part(value)
                part.copy_(floating_point.clamped(part, bound))
        else:
            variable.assign(_clamped(value, bound))


def _clamped(value: Tensor, bound: Tensor) -> Tensor:
    return map_shards(value, lambda shard: floating_point.clamped(shard, bound))


def values_to_keep(variables: Sequence[Variable]) -> list[Tensor]:
    """Copy the values, because Keras's updates on torch write in place."""
    tensors = [variable.value for variable in variables]
    if torch.is_grad_enabled():
        return [tensor.clone() for tensor in tensors]
    return control_flow.copies(tensors)


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Copy the row into the tensor; the index stays on the device."""
    rows, is_own = _value_and_whether_own(variable)
    place = index.reshape(1).long()
    with torch.no_grad():
        row = on(rows.device, row)[None]
        if is_own:
            rows.index_copy_(0, place, row)
        else:
            variable.assign(rows.index_copy(0, place, row))


def count_up(variable: Variable) -> None:
    """Add in place; an assignment would run all of Keras's checks."""
    value, is_own = _value_and_whether_own(variable)
    with torch.no_grad():
        if is_own:
            value.add_(1)
        else:
            variable.assign(value + 1)


def _value_and_whether_own(variable: Variable) -> tuple[Tensor, bool]:
    """Return a variable's value; in `stateless_apply` it belongs to the caller."""
    value = variable.value
    return value, value is keras_private.tensor_of(variable)
