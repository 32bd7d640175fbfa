"""Whether torch itself keeps the gradients, so that a clip may overwrite them."""

from collections.abc import Sequence

import torch

from keras_clip._seam.keras_private import grad_of
from keras_clip._seam.torch_shards import sharded_types
from keras_clip.types import Gradients, Variable


def are_kept_by(variables: Sequence[Variable], gradients: Gradients) -> bool:
    """Whether each gradient is the `.grad` of its variable, as in `fit`.

    torch users expect those to be clipped where they are, as `clip_grad_norm_` does; to write
    the products elsewhere takes as much memory again, and on a processor several times as long.
    False as well where writing would show elsewhere: where a graph for second derivatives hangs
    on a gradient, or one's memory is, or may be, shared.
    """
    if len(variables) != len(gradients) or torch.compiler.is_compiling():
        return False
    kept = zip(map(grad_of, variables), gradients, strict=True)
    if not all(grad is gradient for grad, gradient in kept):
        return False
    sharded = sharded_types()
    if any(gradient.requires_grad or isinstance(gradient, sharded) for gradient in gradients):
        return False
    addresses = {gradient.data_ptr() for gradient in gradients if gradient.is_contiguous()}
    return len(addresses) == len(gradients)
