"""An optimizer's own `apply`, for gradients that are the whole batch's already.

Keras's `apply` divides by the loss scale, accumulates and sums over replicas. A clip comes after
all three. So a second instance of the optimizer shares the state of the first and leaves them out.
Everything else is the optimizer's own: weight decay, update rule, moving averages, constraints and
the counter. The first instance is not changed, and works by itself at any time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_clip.types import Gradients, Optimizer, Variable

UpdateFunction = Callable[[Callable[..., None], Gradients, Sequence[Variable]], None]
"""Called in place of the update rule: with the rule, its gradients and its variables."""


def has_own_apply(optimizer: Optimizer) -> bool:
    """Whether the optimizer's class replaces Keras's `apply`."""
    return type(optimizer).apply is not keras.optimizers.Optimizer.apply


def for_whole_gradients(cls: type) -> type:
    """Return a subclass of an optimizer's class that takes gradients as they are."""

    class TakesWholeGradients(cls):  # type: ignore[misc]
        # A slot, as the state is the optimizer's own.
        __slots__ = ("_update_with",)

        @property
        def loss_scale_factor(self) -> None:
            return None

        @property
        def gradient_accumulation_steps(self) -> None:
            return None

        @property
        def iterations(self) -> Any:
            # Bias corrections count updates, also where gradients are accumulated.
            steps = vars(self).get("gradient_accumulation_steps")
            return ops.floor_divide(self._iterations, steps) if steps else self._iterations

        def _all_reduce_sum_gradients(self, gradients_and_variables: Any) -> Any:
            return gradients_and_variables

        def _backend_update_step(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
            rule = super()._backend_update_step

            def update(gradients: Any, variables: Any) -> None:
                rule(gradients, variables, learning_rate)

            self._update_with(update, gradients, variables)

    return TakesWholeGradients


def for_micro_batches(cls: type) -> type:
    """Return a subclass of `for_whole_gradients(cls)` for batches that do not update.

    On these Keras moves the averages, applies the constraints and counts, no more.
    """

    class CountsOnly(cls):  # type: ignore[misc]
        __slots__ = ()

        # An `apply` of the optimizer's own belongs to updates.
        apply = keras.optimizers.Optimizer.apply

        def _apply_weight_decay(self, variables: Any) -> None:
            del variables

    return CountsOnly


def sharing_state(cls: type, optimizer: Optimizer, update_with: UpdateFunction) -> Optimizer:
    """Return an instance of `cls` whose state is that of `optimizer`."""
    instance: Optimizer = object.__new__(cls)
    object.__setattr__(instance, "__dict__", vars(optimizer))
    object.__setattr__(instance, "_update_with", update_with)
    return instance
