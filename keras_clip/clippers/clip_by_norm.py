"""Clip each variable's gradient by its own norm."""

import keras

from keras_clip.arguments.thresholds import Threshold
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.types import ThresholdValue


@keras.saving.register_keras_serializable(package="keras_clip")
class ClipByNorm(Clipper):
    """Scale each gradient by itself, so that its norm is at most `max_norm`.

    `clipped_i = g_i * min(1, max_norm / norm(g_i))`

    Changes the direction of the joint gradient: variables with large gradients lose more. A
    NaN stays in its own variable.

    Args:
        max_norm: threshold in units of the gradients' norm, at least 0: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 1.0.

    Raises:
        TypeError: `max_norm` is not a number, schedule or callable.
        ValueError: `max_norm` is negative or NaN.

    Reference:
        `tf.clip_by_norm` and `clipnorm` of Keras's optimizers. Deviations: it is exact at or
        below the threshold and in half precision, and repeated rows of `tf.IndexedSlices` count
        as their sum.

    Example:
        >>> import keras_clip
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=keras_clip.ClipByNorm(0.5))
    """

    _is_done_with_gradients = True
    _needs_norms = True
    max_norm = Threshold()

    def __init__(self, max_norm: ThresholdValue = 1.0) -> None:
        self.max_norm = max_norm

    def clip(self, update: Update) -> Clipped:
        """Scale each gradient by `max_norm / norm` if its norm is above the threshold."""
        limit = update.evaluate(self.max_norm)
        return update.scaled_each_to_norm(limit)
