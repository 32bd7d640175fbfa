"""Whether torch itself keeps the gradients, so that a clip may overwrite them."""

from collections.abc import Sequence

import torch

from keras_clip._seam.keras_private import grad_of
from keras_clip._seam.torch_shards import is_sharded
from keras_clip.types import Gradient, Gradients, Variable


def are_kept_by(variables: Sequence[Variable], gradients: Gradients) -> bool:
    """Whether each gradient is the `.grad` of its variable, as in `fit`.

    torch users expect those to be clipped where they are, as `clip_grad_norm_` does; to write
    the products elsewhere takes as much memory again, and on a processor several times as long.
    False as well where writing would show elsewhere: where a graph for second derivatives hangs
    on a gradient, or one's memory is, or may be, shared.
    """
    if len(variables) != len(gradients) or torch.compiler.is_compiling():
        return False
    kept = all(
        grad_of(variable) is gradient and _is_plain(gradient)
        for variable, gradient in zip(variables, gradients, strict=True)
    )
    return kept and len({gradient.data_ptr() for gradient in gradients}) == len(gradients)


def _is_plain(gradient: Gradient) -> bool:
    return not (gradient.requires_grad or is_sharded(gradient)) and gradient.is_contiguous()
