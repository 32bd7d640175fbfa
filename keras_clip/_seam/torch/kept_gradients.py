"""Whether gradients are their variables' `.grad`, so that a clip may overwrite them."""

from collections.abc import Sequence
from operator import attrgetter, is_

import torch

from keras_clip._seam.keras_private import grad_of, tensor_of
from keras_clip._seam.torch.shards import any_sharded
from keras_clip.types import Gradients, Variable

_requires_grad = attrgetter("requires_grad")


def are_kept_by(variables: Sequence[Variable], gradients: Gradients) -> bool:
    """Return whether each gradient is the `.grad` of its variable, as in `fit`.

    torch users expect a clip in place here, as by `clip_grad_norm_`. New tensors would take as much
    memory again, and on a CPU several times as long. False also if the write would show elsewhere:
    if a gradient has a graph for second derivatives, or if its memory is or may be shared.
    """
    if not variables or len(variables) != len(gradients) or torch.compiler.is_compiling():
        return False
    if not all(map(is_, map(grad_of, variables), gradients)):
        return False
    # In `stateless_apply` the values of variables and their gradients belong to the caller.
    if variables[0].value is not tensor_of(variables[0]):
        return False
    if any(map(_requires_grad, gradients)) or any_sharded(gradients):
        return False
    if not all(map(torch.Tensor.is_contiguous, gradients)):
        return False
    return len(set(map(torch.Tensor.data_ptr, gradients))) == len(gradients)
