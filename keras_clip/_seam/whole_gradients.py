"""An optimizer's own `apply`, for gradients of the whole batch.

Keras's `apply` divides by the loss scale, accumulates and sums over replicas. A clip comes after
all three. A second instance of the optimizer therefore shares the state of the first and skips
these steps. Everything else is the optimizer's own: weight decay, update rule, moving averages,
constraints and the counter. The first instance is unchanged and works alone at any time.
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
    """Return a subclass of an optimizer's class for unscaled, accumulated, summed gradients."""

    class TakesWholeGradients(cls):  # type: ignore[misc]
        # A slot, because `__dict__` is the optimizer's own.
        __slots__ = ("_update_with",)

        @property
        def loss_scale_factor(self) -> None:
            return None

        @property
        def gradient_accumulation_steps(self) -> None:
            return None

        @property
        def iterations(self) -> Any:
            # Bias corrections count updates, not micro-batches.
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
    """Return a subclass of `for_whole_gradients(cls)` for micro-batches without an update.

    For these, Keras only moves the averages, applies the constraints and counts.
    """

    class CountsOnly(cls):  # type: ignore[misc]
        __slots__ = ()

        # The optimizer's own `apply` is for updates only.
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
