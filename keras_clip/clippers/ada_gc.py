"""Clip each variable's gradient by a moving average of its norms."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.arguments.hyperparameters import check_count, check_finite
from keras_clip.arguments.thresholds import Threshold, check_number
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.norms import floating_point
from keras_clip.norms.global_norm import norm_of_tensors
from keras_clip.types import Tensor, ThresholdValue, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class AdaGC(Clipper):
    """Clip each gradient by itself, near a moving average of its clipped norms.

    `clipped_i = g_i * limit_i / (norm_i + eps)` if `norm_i > limit_i`, else `g_i`, where
    `limit_i = clip_ratio * gamma_i`; then
    `gamma_i' = beta * gamma_i + (1 - beta) * min(norm_i, limit_i)`.

    Warm-up: the first `start_clip_steps` updates scale all gradients by
    `min(1, max_norm / (global_norm + eps))`, and `gamma_i` is the smallest norm after that. If
    all gradients of a variable were zero until then, it starts with `gamma_i = norm_i` at its
    first gradient that is not zero.

    Experimental: the paper is young, and the rule has sharp edges. `gamma_i` starts from the
    smallest norm of the warm-up, and grows per update by a factor of at most
    `1 + (1 - beta) * (clip_ratio - 1)`, 1.0004 with the defaults. With ordinary noise, most
    updates are therefore clipped. `eps` shrinks gradients whose norm is not far above it. The
    direction of the joint gradient changes.

    Args:
        clip_ratio: at least 0, the largest accepted ratio of a norm to `gamma_i`: a number, a
            `LearningRateSchedule` or a callable of the step. Defaults to 1.04. You can assign a
            number at any time.
        beta: float from 0 to 1, the weight of the old `gamma_i` at each update. Defaults to
            0.99.
        eps: float, at least 0, in units of the gradients' norm, added to norms before the
            division. Defaults to 1e-6.
        start_clip_steps: int, number of updates of the warm-up, at least 0. Defaults to 100.
        max_norm: at least 0, in units of the gradients' norm, the limit of the global norm
            in the warm-up: as `clip_ratio`. Defaults to 1.0.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a number is NaN or out of its bounds.

    Reference:
        Wang et al. 2025, "AdaGC: Improving training stability for large language model
        pretraining", arXiv 2502.11034, and the authors' patch of Megatron, which has these
        arguments. Deviations: a gradient that is zero, or is clipped to zero, does not enter
        `gamma_i`. In the authors' code, a zero in the warm-up makes `gamma_i` and every later
        gradient of the variable zero. An infinite or NaN gradient leaves all `gamma_i`
        unchanged. A variable without a gradient in a step keeps its `gamma_i`. The authors'
        GlobalAdaGC, one gamma for the global norm, is not included.

    Example:
        >>> import keras, keras_clip
        >>> clipper = keras_clip.AdaGC(start_clip_steps=500)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=clipper)
    """

    _is_done_with_gradients = True
    _needs_norms = True
    clip_ratio = Threshold()
    max_norm = Threshold()

    def __init__(
        self,
        clip_ratio: ThresholdValue = 1.04,
        beta: float = 0.99,
        eps: float = 1e-6,
        start_clip_steps: int = 100,
        max_norm: ThresholdValue = 1.0,
    ) -> None:
        self.clip_ratio = clip_ratio
        self.beta = check_number("beta", beta, maximum=1.0)
        self.eps = check_finite("eps", eps)
        self.start_clip_steps = check_count("start_clip_steps", start_clip_steps, minimum=0)
        self.max_norm = max_norm

    def build(self, variables: Sequence[Variable]) -> None:
        """Create a gamma for each variable, 0 until it is known, and the counter."""
        self._places = {id(variable): place for place, variable in enumerate(variables)}
        self.gamma = self.add_variable((len(variables),), name="gamma")
        self.count = self.add_variable((), dtype="int32", name="count")

    def clip(self, update: Update) -> Clipped:
        """Scale each gradient to its limit, and update the gammas of these variables."""
        if not update.gradients:
            return Clipped([])
        places = self._places_of(update.variables)
        gamma = self.gamma.value if places is None else ops.take(self.gamma.value, places, axis=0)
        norms = ops.cast(update.norms, self.dtype)
        is_warming_up = self.count.value < self.start_clip_steps
        first, first_gamma = self._in_warm_up(norms, gamma, update)
        later, later_gamma = self._after_warm_up(norms, gamma, update)
        self._keep(places, backend.where(is_warming_up, first_gamma, later_gamma))
        self.count.assign(backend.where(is_warming_up, self.count.value + 1, self.count.value))
        return update.scaled_each_to_norm(backend.where(is_warming_up, first, later))

    def _in_warm_up(self, norms: Tensor, gamma: Tensor, update: Update) -> tuple[Tensor, Tensor]:
        """Return the norms to scale to, and the new gammas."""
        max_norm = ops.cast(update.evaluate(self.max_norm), self.dtype)
        norm = ops.cast(update.global_norm, self.dtype) + self.eps
        is_above = norm > max_norm
        limit = backend.where(is_above, max_norm, ops.ones_like(max_norm))
        # The quotient first: limit / norm alone may underflow.
        targets = backend.where(is_above, self._shares(norms, norm) * limit, norms)
        is_smallest = ops.logical_or(gamma == 0, targets < gamma)
        is_smallest = ops.logical_and(targets > 0, is_smallest)
        return targets, backend.where(is_smallest, targets, gamma)

    def _shares(self, norms: Tensor, norm: Tensor) -> Tensor:
        """Return `norms / norm`, also for a norm above the range."""
        shrunk = norms * floating_point.shrinkage(norm)
        in_range = floating_point.is_in_range(norm)
        divisor = backend.where(in_range, norm, norm_of_tensors([shrunk]))
        divisor = backend.where(divisor > 0, divisor, ops.ones_like(divisor))
        return shrunk / divisor

    def _after_warm_up(self, norms: Tensor, gamma: Tensor, update: Update) -> tuple[Tensor, Tensor]:
        clip_ratio = ops.cast(update.evaluate(self.clip_ratio), self.dtype)
        known = backend.where(gamma == 0, norms, gamma)
        limits = clip_ratio * known
        is_above = norms > limits
        one = ops.ones_like(norms)
        shrunk_by_eps = backend.where(is_above, norms, one) / backend.where(
            is_above, norms + self.eps, one
        )
        targets = backend.where(is_above, shrunk_by_eps * limits, norms)
        entering = backend.where(is_above, limits, norms)
        moved = self.beta * known + (1.0 - self.beta) * entering
        return targets, backend.where(entering > 0, moved, gamma)

    def _places_of(self, variables: Sequence[Variable]) -> Tensor | None:
        """Return the positions of the variables' gammas, or None for all gammas in order."""
        numbers = [self._places[id(variable)] for variable in variables]
        if numbers == list(range(len(self._places))):
            return None
        return backend.constant(np.array(numbers, dtype="int32"), like=self.gamma.value)

    def _keep(self, places: Tensor | None, gamma: Tensor) -> None:
        if places is not None:
            gamma = ops.scatter_update(self.gamma.value, places[:, None], gamma)
        self.gamma.assign(gamma)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the current thresholds."""
        return {
            **super().get_config(),
            "beta": self.beta,
            "eps": self.eps,
            "start_clip_steps": self.start_clip_steps,
        }
