"""Clip norms that are outliers among past norms."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.hyperparameters import check_choice, check_count, check_finite, check_flag
from keras_clip.arguments.thresholds import Threshold, check_number
from keras_clip.clippers import running_moments
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.norms.global_norm import norm_scaled_to
from keras_clip.types import Tensor, ThresholdValue, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class ZClip(Clipper):
    """Clip by the global norm if it is an outlier among the norms of past updates.

    `clipped_i = g_i * min(1, threshold / norm)`, `threshold = min(adaptive, max_grad_norm)`,
    with the moving `mean` and `std` of norms and `z = (norm - mean) / (std + eps)`:

    - `mode="zscore"`: if `z > z_thresh`, `adaptive` is
      `clip_factor * (mean + z_thresh ** 2 * std / z)` with `clip_option="adaptive_scaling"`,
      which is lower for larger spikes, or `mean` with `clip_option="mean"`;
    - `mode="percentile"`: if `norm > mean + z_thresh * std`, `adaptive` is that bound;
    - otherwise there is no spike, and `adaptive` is the norm itself.

    Then `mean' = alpha * mean + (1 - alpha) * adaptive` and
    `std' = sqrt(alpha * std ** 2 + (1 - alpha) * (adaptive - mean') ** 2)`.

    In the first `warmup_steps` updates, only `max_grad_norm` limits. `mean` and `std` become
    those of the norms before clipping, with the standard deviation of the population. If these
    norms are all equal, `std` is 0 and every larger norm is a spike. The variable `threshold`
    holds the latest threshold. It is never above its norm, and equals the norm if nothing was
    clipped. The variable `bound` holds the largest norm that would have passed. Both are 0
    before the first update. The default `max_grad_norm` hides the adaptive part if norms are
    usually above 1.

    Args:
        alpha: float from 0 to 1, the weight of the old `mean` and `std` at each update. Defaults
            to 0.97.
        z_thresh: at least 0, number of standard deviations above which a norm is a spike: a
            number, a `LearningRateSchedule` or a callable of the step. Defaults to 2.5. You can
            assign a number at any time.
        max_grad_norm: at least 0, in units of the gradients' norm, limit of all norms: a number,
            a `LearningRateSchedule`, a callable of the step, or None for no limit. Defaults to
            1.0.
        eps: float, at least 0, in units of the gradients' norm, added to `std` in `z`.
            Defaults to 1e-6.
        warmup_steps: int, number of updates of the warm-up, at least 1. Defaults to 25.
        mode: "zscore" or "percentile". Defaults to "zscore".
        clip_option: "adaptive_scaling" or "mean". Defaults to "adaptive_scaling". Unused if
            `mode` is "percentile".
        clip_factor: float, at least 0, multiplies the whole threshold of "adaptive_scaling".
            Defaults to 1.0. Unused otherwise.
        skip_update_on_spike: bool, whether `mean` and `std` stay unchanged at a spike. The
            weights are updated in any case. Defaults to False.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a number is NaN or out of its bounds, or a word is not one of the choices.

    Reference:
        Kumar et al. 2025, "ZClip: Adaptive spike mitigation for LLM pre-training", arXiv
        2504.02507, and the authors' code, package zclip 1.0.0, which has these arguments.
        Deviations: no 1e-6 is added to the norm, so updates at or below the threshold pass bit
        for bit; an infinite or NaN norm changes neither `mean` nor `std`, which become NaN in
        the authors' code; the state is the standard deviation, because its square overflows;
        `warmup_steps=0`, which the authors treat as 1, is an error.

    Example:
        >>> import keras, keras_clip
        >>> clipper = keras_clip.ZClip(z_thresh=3.0, max_grad_norm=None)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    _is_done_with_gradients = True
    z_thresh = Threshold()
    max_grad_norm = Threshold(optional=True)

    def __init__(
        self,
        alpha: float = 0.97,
        z_thresh: ThresholdValue = 2.5,
        max_grad_norm: ThresholdValue | None = 1.0,
        eps: float = 1e-6,
        warmup_steps: int = 25,
        mode: str = "zscore",
        clip_option: str = "adaptive_scaling",
        clip_factor: float = 1.0,
        skip_update_on_spike: bool = False,
    ) -> None:
        self.alpha = check_number("alpha", alpha, maximum=1.0)
        self.z_thresh = z_thresh
        self.max_grad_norm = max_grad_norm
        self.eps = check_finite("eps", eps)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, minimum=1)
        self.mode = check_choice("mode", mode, ("zscore", "percentile"))
        self.clip_option = check_choice("clip_option", clip_option, ("adaptive_scaling", "mean"))
        self.clip_factor = check_finite("clip_factor", clip_factor)
        self.skip_update_on_spike = check_flag("skip_update_on_spike", skip_update_on_spike)

    def build(self, variables: Sequence[Variable]) -> None:
        """Create `mean` and `std`, the count of norms in the warm-up, and the latest limits."""
        del variables
        self.mean = self.add_variable((), name="mean")
        self.std = self.add_variable((), name="std")
        self.count = self.add_variable((), dtype="int32", name="count")
        self.threshold = self.add_variable((), name="threshold")
        self.bound = self.add_variable((), name="bound")

    def clip(self, update: Update) -> Clipped:
        """Scale to the threshold, and update `mean` and `std` by the norm after the clip."""
        norm = ops.cast(update.global_norm, self.dtype)
        _, bound = self.running_threshold(update)
        bound = self._at_most_max_grad_norm(bound, update)
        self.bound.assign(bound)
        is_spike, limit = self._adaptive_limit(norm, update)
        is_spike = ops.logical_and(is_spike, ops.logical_not(self._is_warming_up()))
        adaptive = backend.where(is_spike, limit, norm)
        self._learn(adaptive, is_spike)
        threshold = self._at_most_max_grad_norm(adaptive, update)
        self.threshold.assign(threshold)
        scaled = update.scaled_to_norm(threshold)
        # The record shows `bound`, because `threshold` equals the norm if nothing is clipped.
        return Clipped(scaled.gradients, bound, lambda: norm_scaled_to(norm, threshold))

    def _is_warming_up(self) -> Tensor:
        return self.count.value < self.warmup_steps

    def _adaptive_limit(self, norm: Tensor, update: Update) -> tuple[Tensor, Tensor]:
        """Whether the norm is a spike once warmed up, and its limit if it is."""
        if self.mode == "percentile":
            bound = self._bound(update)
            return norm > bound, bound
        mean, std, z_thresh = self.mean.value, self.std.value, self._z_thresh(update)
        z = (norm - mean) / (std + self.eps)
        is_spike = z > z_thresh
        if self.clip_option == "mean":
            return is_spike, mean
        divisor = backend.where(is_spike, z, ops.ones_like(z))
        return is_spike, self.clip_factor * (mean + z_thresh * std * (z_thresh / divisor))

    def _bound(self, update: Update) -> Tensor:
        return self.mean.value + self._z_thresh(update) * self.std.value

    def _z_thresh(self, update: Update) -> Tensor:
        return ops.cast(update.evaluate(self.z_thresh), self.dtype)

    def _learn(self, norm: Tensor, is_spike: Tensor) -> None:
        mean, std, count = self.mean.value, self.std.value, self.count.value
        is_warming_up = self._is_warming_up()
        first = running_moments.of_all(mean, std, norm, ops.cast(count + 1, self.dtype))
        later = running_moments.exponential(mean, std, norm, self.alpha)
        if self.skip_update_on_spike:
            later = (
                backend.where(is_spike, mean, later[0]),
                backend.where(is_spike, std, later[1]),
            )
        self.mean.assign(backend.where(is_warming_up, first[0], later[0]))
        self.std.assign(backend.where(is_warming_up, first[1], later[1]))
        self.count.assign(backend.where(is_warming_up, count + 1, count))

    def _at_most_max_grad_norm(self, limit: Tensor, update: Update) -> Tensor:
        maximum = update.evaluate(self.max_grad_norm)
        if maximum is None:
            return limit
        maximum = ops.cast(maximum, self.dtype)
        return backend.where(limit > maximum, maximum, limit)

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return the norm, and `mean + z_thresh * std` of the norms before it.

        In the warm-up the limit is `max_grad_norm`, or infinity if that is None.
        """
        maximum = update.evaluate(self.max_grad_norm)
        first = math.inf if maximum is None else ops.cast(maximum, self.dtype)
        first = ops.zeros_like(self.mean.value) + first
        return update.global_norm, backend.where(self._is_warming_up(), first, self._bound(update))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the current thresholds."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "eps": self.eps,
            "warmup_steps": self.warmup_steps,
            "mode": self.mode,
            "clip_option": self.clip_option,
            "clip_factor": self.clip_factor,
            "skip_update_on_spike": self.skip_update_on_spike,
        }
