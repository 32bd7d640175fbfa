"""The result of a clip, with its threshold and norm for the record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras_clip.norms.global_norm import norm_of_tensors, norm_scaled_to
from keras_clip.types import Gradient, Tensor


@dataclass(frozen=True, eq=False)
class Clipped:
    """Gradients after a clip, with the threshold and the norm for the record.

    `Clipper.clip` may return it in place of a list. For a list, the record has no threshold, and
    the norm is measured. If no record is kept, nothing is measured.

    Args:
        gradients: list or tuple of tensors, in the order of `update.gradients`.
        threshold: scalar tensor or number, the limit of the global norm that the clip used.
            Defaults to None: no such limit.
        norm: scalar tensor, the global norm of `gradients`, or a function without arguments
            that returns it; called only if a record is kept. Defaults to None: measured.
        norm_before: scalar tensor, the global norm before the clip, if one factor scaled the
            gradients to `threshold`. The norm is then `min(norm_before, threshold)`, and is not
            measured. Defaults to None.

    Raises:
        TypeError: `gradients` is not a list or tuple.
        ValueError: `norm_before` is given without a `threshold`, or with a `norm`.

    Example:
        >>> import keras, keras_clip
        >>> class Unit(keras_clip.Clipper):
        ...     def clip(self, update):
        ...         clipped, norm = keras_clip.clip_by_global_norm(update.gradients, 1.0)
        ...         return keras_clip.Clipped(clipped, threshold=1.0, norm_before=norm)
        >>> optimizer = keras_clip.ClippedOptimizer("sgd", clipper=Unit())
        >>> variable = keras.Variable([0.0, 0.0])
        >>> optimizer.apply([keras.ops.convert_to_tensor([3.0, 4.0])], [variable])
        >>> float(optimizer.history["clip_threshold"][0])
        1.0
    """

    gradients: Sequence[Gradient]
    threshold: Tensor | None = None
    norm: Tensor | Callable[[], Tensor] | None = None
    norm_before: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.gradients, list | tuple):
            raise TypeError(
                "A clip returns a list of gradients, one for each of update.gradients, or a "
                f"keras_clip.Clipped with such a list. Received: {self.gradients!r}."
            )
        if self.norm_before is not None and (self.threshold is None or self.norm is not None):
            raise ValueError(
                "norm_before is the norm that one factor scaled to `threshold`: give both, and no "
                f"norm. Received: threshold={self.threshold!r}, norm={self.norm!r}."
            )

    def norm_after(self, norm_before: Tensor) -> Tensor | None:
        """Return the global norm of `gradients`, or None for `min(norm_before, threshold)`."""
        if self.norm_before is not None:
            is_known = norm_before is self.norm_before
            return None if is_known else norm_scaled_to(self.norm_before, self.threshold)
        if self.norm is None:
            return norm_of_tensors(self.gradients)
        return self.norm() if callable(self.norm) else self.norm


def as_clipped(result: list[Gradient] | Clipped) -> Clipped:
    """Return the result of `Clipper.clip` as a `Clipped`."""
    return result if isinstance(result, Clipped) else Clipped(result)
