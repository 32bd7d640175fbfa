"""What a clipper is told about the update that is about to happen."""

from dataclasses import dataclass

from keras_clip.types import Gradient, Tensor, Variable


@dataclass(frozen=True)
class Update:
    """Gradients right before the wrapped optimizer uses them.

    They are the whole batch's: unscaled, accumulated, summed over replicas, without `None`.

    Attributes:
        gradients: list of tensors (`tf.IndexedSlices` among them on TensorFlow).
        variables: list of the variables they update, in the same order.
        step: integer scalar tensor, the number of updates applied before this one.
        global_norm: scalar tensor, `keras_clip.global_norm(gradients)`, computed once.
    """

    gradients: list[Gradient]
    variables: list[Variable]
    step: Tensor
    global_norm: Tensor
