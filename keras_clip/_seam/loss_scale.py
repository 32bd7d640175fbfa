"""A LossScaleOptimizer around the wrapper, under several replicas."""

from collections.abc import Callable, Sequence

import keras

from keras_clip._seam import backend, keras_private
from keras_clip._seam.live_objects import instances_of
from keras_clip.types import Gradient, Optimizer, Tensor


def look_at_all_replicas(wrapper: Optimizer) -> None:
    """Have the LossScaleOptimizer around `wrapper`, if there is one, ask every replica.

    It looks at the gradients before they are summed over replicas and goes by what the first
    one has, so that a NaN on the second reaches the weights. It tells the optimizer inside
    nothing of itself; hence a look at every object of the process, once per build.
    """
    if backend.replicas() == 1:
        return
    for outer in instances_of(keras.optimizers.LossScaleOptimizer):
        is_around = vars(outer).get("inner_optimizer") is wrapper
        if is_around and not isinstance(outer.check_finite, _OnEveryReplica):
            keras_private.replace_methods(outer, check_finite=_OnEveryReplica(outer.check_finite))


class _OnEveryReplica:
    """`check_finite` of one replica, made that of all."""

    def __init__(self, check_finite: Callable[[Sequence[Gradient]], Tensor]) -> None:
        self._check_finite = check_finite

    def __call__(self, gradients: Sequence[Gradient]) -> Tensor:
        return backend.on_every_replica(self._check_finite(gradients))
