"""Whether torch itself keeps the gradients, so that a clip may overwrite them."""

from collections.abc import Sequence
from operator import attrgetter, is_

import torch

from keras_clip._seam.keras_private import grad_of, tensor_of
from keras_clip._seam.torch.shards import any_sharded
from keras_clip.types import Gradients, Variable

_requires_grad = attrgetter("requires_grad")


def are_kept_by(variables: Sequence[Variable], gradients: Gradients) -> bool:
    """Whether each gradient is the `.grad` of its variable, as in `fit`.

    torch users expect those to be clipped where they are, as `clip_grad_norm_` does; to write
    the products elsewhere takes as much memory again, and on a processor several times as long.
    False as well where writing would show elsewhere: where a graph for second derivatives hangs
    on a gradient, or one's memory is, or may be, shared.
    """
    if not variables or len(variables) != len(gradients) or torch.compiler.is_compiling():
        return False
    if not all(map(is_, map(grad_of, variables), gradients)):
        return False
    # In `stateless_apply` a variable's value is what the caller gave for it, and his gradients
    # are not Keras's to change.
    if variables[0].value is not tensor_of(variables[0]):
        return False
    if any(map(_requires_grad, gradients)) or any_sharded(gradients):
        return False
    if not all(map(torch.Tensor.is_contiguous, gradients)):
        return False
    return len(set(map(torch.Tensor.data_ptr, gradients))) == len(gradients)
