"""Clip by a percentile of past norms."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.hyperparameters import check_count
from keras_clip.arguments.thresholds import Threshold
from keras_clip.clippers import sorted_window
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.types import Tensor, ThresholdValue, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class AutoClip(Clipper):
    """Clip by the global norm, at a percentile of the norms of the latest updates.

    `clipped_i = g_i * min(1, threshold / global_norm(g))`, where
    `threshold = max(min_threshold, percentile(the last history_size norms before clipping, this
    one included))`

    There is no warm-up. Without `max_growth` the first update passes unchanged, because its norm
    is the whole history. A low percentile clips most updates, about 90 % of them at 10, and steps
    then have nearly one length. A history may hold zeros. A threshold of 0 makes gradients zero
    until enough larger norms have been seen; with `percentile=0`, until the zero has left the
    history.
    The variable `threshold` holds the latest threshold, 0 before the first update.

    Norms that explode raise the percentile. With `max_growth`, which is not in the paper, the
    history holds `min(norm, max_growth * threshold)` instead, with the threshold before this
    update, or `min_threshold` at first. The threshold then follows steady norms and hardly an
    explosion. `AutoClip(25, min_threshold=1.0, max_growth=1.5)` lost least in our measurements.

    Args:
        percentile: from 0 to 100, the percentage of norms below the threshold, interpolated
            linearly between two norms: a number, a `LearningRateSchedule` or a callable of the
            step. Defaults to 10.0. 100 never clips, 0 clips to the smallest norm in the
            history. A function's values beyond 0 or 100 count as these. You can assign a number
            at any time.
        history_size: int, number of norms in the history, at least 1. Defaults to 10000. Each
            takes two floats of memory.
        min_threshold: at least 0, in units of the gradients' norm, the smallest threshold: as
            `percentile`. Defaults to 0.0.
        max_growth: from 1 to 1000, the largest ratio of a norm in the history to the threshold
            before it: as `percentile`, or None for no limit. It needs a `min_threshold` above 0.
            Defaults to None.

    Raises:
        TypeError: `percentile`, `min_threshold` or `max_growth` is not a number, schedule or
            callable, or `history_size` is not an int.
        ValueError: a number is out of its bounds, or `max_growth` is given without
            `min_threshold`.

    Reference:
        Seetharaman, Wichern, Pardo, Le Roux 2020, "AutoClip: Adaptive gradient clipping for
        source separation networks", arXiv 2007.14469, and its code for torch. Deviations: the
        history is finite; the scale is `threshold / norm`, without the authors' 1e-6, so an
        update at its threshold passes bit for bit; an infinite or NaN norm does not enter the
        history. The authors' TensorFlow code differs from their paper (nearest rank, and each
        gradient clipped by itself); this class follows the paper.

    Example:
        >>> import keras, keras_clip
        >>> clipper = keras_clip.AutoClip(percentile=50, history_size=1000)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    _is_done_with_gradients = True
    percentile = Threshold(maximum=100.0)
    min_threshold = Threshold()
    max_growth = Threshold(minimum=1.0, maximum=1000.0, optional=True)

    def __init__(
        self,
        percentile: ThresholdValue = 10.0,
        history_size: int = 10_000,
        min_threshold: ThresholdValue = 0.0,
        max_growth: ThresholdValue | None = None,
    ) -> None:
        self.percentile = percentile
        self.history_size = check_count("history_size", history_size, minimum=1)
        self.min_threshold = min_threshold
        self.max_growth = max_growth
        if max_growth is not None and self.min_threshold == 0:
            raise ValueError(
                "max_growth needs a min_threshold above 0, because a threshold of 0 could never "
                f"grow. Received: max_growth={max_growth!r}, min_threshold={min_threshold!r}."
            )

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the history, in order of arrival and sorted, and the number of its norms."""
        del variables
        shape = (self.history_size,)
        self.norms = self.add_variable(shape, initializer=sorted_window.empty, name="norms")
        self.sorted_norms = self.add_variable(
            shape, initializer=sorted_window.empty, name="sorted_norms"
        )
        self.count = self.add_variable((), dtype="int32", name="count")
        self.threshold = self.add_variable((), name="threshold")

    def clip(self, update: Update) -> Clipped:
        """Add the norm to the history and scale to the threshold of the history."""
        before = self._threshold_of_history(update)
        self._remember(self._entering(before, update))
        # A NaN or overflowed norm does not enter the history, so the earlier threshold applies.
        threshold = self._threshold_of_history(update)
        threshold = backend.where(update.norm_is_in_range, threshold, before)
        self.threshold.assign(threshold)
        return update.scaled_to_norm(threshold)

    def _entering(self, before: Tensor, update: Update) -> Tensor:
        norm = ops.cast(update.global_norm, self.dtype)
        growth = update.evaluate(self.max_growth)
        if growth is None:
            return norm
        growth = ops.cast(growth, self.dtype)
        # Without a history `before` is the largest number.
        known = backend.where(self.count.value > 0, before, self._min_threshold(update))
        # Divide first: the product may overflow where the norm is not above it.
        # A threshold of 0 could never grow.
        is_above = ops.logical_and(known > 0, norm / growth > known)
        bound = backend.where(is_above, known, ops.zeros_like(known)) * growth
        return backend.where(is_above, bound, norm)

    def _remember(self, norm: Tensor) -> None:
        place = self.count.value % self.history_size
        oldest = ops.take(self.norms.value, place)
        backend.write_row(self.norms, place, norm)
        self.sorted_norms.assign(sorted_window.replace(self.sorted_norms.value, oldest, norm))
        self.count.assign(self.count.value + 1)

    def _threshold_of_history(self, update: Update) -> Tensor:
        """Return the percentile, or `min_threshold` if that is larger."""
        percentile, least = self._percentile_of_history(update), self._min_threshold(update)
        return backend.where(percentile < least, least, percentile)

    def _min_threshold(self, update: Update) -> Tensor:
        return ops.cast(update.evaluate(self.min_threshold), self.dtype)

    def _percentile_of_history(self, update: Update) -> Tensor:
        percent = ops.cast(update.evaluate(self.percentile), self.dtype)
        seen = self.count.value
        size = ops.zeros_like(seen) + self.history_size
        held = backend.where(seen < size, seen, size)
        return sorted_window.percentile(self.sorted_norms.value, held, percent)

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return the norm, and the threshold of earlier norms, infinite without any."""
        threshold = self._threshold_of_history(update)
        none_yet = ops.zeros_like(threshold) + math.inf
        return update.global_norm, backend.where(self.count.value > 0, threshold, none_yet)

    def get_config(self) -> dict[str, Any]:
        """Return the current thresholds, and `history_size`."""
        return {**super().get_config(), "history_size": self.history_size}
