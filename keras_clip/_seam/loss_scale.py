"""Extend Keras's LossScaleOptimizer, the only class of another library that is changed.

It reads only the gradients of the first replica to decide whether to skip an update. It does not
report a skip to the wrapped optimizer. `compile` makes it under `mixed_float16`, so a subclass
cannot replace it. Around any other optimizer its behaviour is unchanged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_clip._seam import backend
from keras_clip.types import Gradient, Optimizer, Tensor

# As in Keras 2. A scale below 1 shrinks gradients.
_LOWEST_SCALE = 1.0

_Overflowed = Callable[[Optimizer], None]


def tell_of_overflows(wrapper_class: type, overflowed: _Overflowed) -> None:
    """Make every LossScaleOptimizer around a wrapper ask all replicas and report overflows.

    Args:
        wrapper_class: the class of the wrapper.
        overflowed: called with a wrapper whose update was skipped; it may assign variables.
    """
    outer_class = keras.optimizers.LossScaleOptimizer
    check_finite = outer_class.check_finite
    lower_scale = outer_class._stateful_handle_non_finite_grads
    lower_scale_statelessly = outer_class._stateless_handle_non_finite_grads

    def check_every_replica(outer: Optimizer, gradients: Sequence[Gradient]) -> Tensor:
        finite = check_finite(outer, gradients)
        is_around = isinstance(outer.inner_optimizer, wrapper_class)
        return backend.on_every_replica(finite) if is_around else finite

    def lower_scale_and_tell(outer: Optimizer) -> None:
        lower_scale(outer)
        if isinstance(outer.inner_optimizer, wrapper_class):
            _limit_scale(outer)
            overflowed(outer.inner_optimizer)

    def lower_scale_and_tell_statelessly(
        outer: Optimizer, optimizer_variables: list[Tensor], trainable_variables: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        weights, state = lower_scale_statelessly(outer, optimizer_variables, trainable_variables)
        if not isinstance(outer.inner_optimizer, wrapper_class):
            return weights, state
        mapping: Any = list(zip(outer.variables, state, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            _limit_scale(outer)
            overflowed(outer.inner_optimizer)
        return weights, [scope.get_current_value(variable) for variable in outer.variables]

    outer_class.check_finite = check_every_replica
    outer_class._stateful_handle_non_finite_grads = lower_scale_and_tell
    outer_class._stateless_handle_non_finite_grads = lower_scale_and_tell_statelessly


def _limit_scale(outer: Optimizer) -> None:
    halved = ops.convert_to_tensor(outer.dynamic_scale)
    lowest = ops.minimum(halved * 2.0, _LOWEST_SCALE)
    outer.dynamic_scale.assign(ops.maximum(halved, lowest))
