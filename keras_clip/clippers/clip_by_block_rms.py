"""Clip each variable's gradient by its root mean square."""

import math

import keras
import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.thresholds import Threshold
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.types import Tensor, ThresholdValue


@keras.saving.register_keras_serializable(package="keras_clip")
class ClipByBlockRMS(Clipper):
    """Scale each gradient by itself, so that its root mean square is at most `threshold`.

    `clipped_i = g_i / max(1, rms(g_i) / threshold)`, `rms(g) = sqrt(mean(g ** 2))`

    The rule is made for normalised updates such as Adafactor's, where `threshold` is called d.
    Gradients of a loss rarely have a root mean square near 1: choose a small threshold for them.

    Args:
        threshold: in units of one entry of a gradient, at least 0: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 1.0.

    Raises:
        TypeError: `threshold` is not a number, schedule or callable.
        ValueError: `threshold` is negative or NaN.

    Reference:
        Shazeer, Stern 2018, arXiv 1804.04235; `optax.clip_by_block_rms`. The mean of sparse
        gradients is over all rows of the variable. A gradient without entries passes, where
        optax gives NaN.

    Example:
        >>> import keras_clip
        >>> clipper = keras_clip.ClipByBlockRMS(threshold=0.01)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    _is_done_with_gradients = True
    _needs_norms = True
    threshold = Threshold()

    def __init__(self, threshold: ThresholdValue = 1.0) -> None:
        self.threshold = threshold

    def clip(self, update: Update) -> Clipped:
        """Clip to the norm of a gradient with this root mean square."""
        return update.scaled_each_to_norm(self._limits(update))

    def _limits(self, update: Update) -> Tensor:
        roots = [math.sqrt(math.prod(variable.shape)) for variable in update.variables]
        threshold = ops.cast(update.evaluate(self.threshold), self.dtype)
        return threshold * backend.constant(np.array(roots, dtype=self.dtype), like=threshold)
