"""Stepping in between the gradients and the update of one optimizer."""

from functools import partial

from keras_clip._seam import backend, keras_private, replicated_accumulation
from keras_clip._seam.projection import project
from keras_clip.types import (
    BoundFunction,
    ClipFunction,
    Gradient,
    Gradients,
    Optimizer,
    Tensor,
    Variable,
)


class SingleInterception:
    """Calls `clip` on the gradients that `optimizer` is about to use.

    Args:
        optimizer: the wrapped optimizer, built.
        clip: called with whole-batch gradients and their variables.
        bounds: what the variables are projected to after each update, or None.
    """

    RUNS_ON_MICRO_BATCHES = backend.UPDATES_ON_MICRO_STEPS

    def __init__(
        self, optimizer: Optimizer, clip: ClipFunction, bounds: BoundFunction | None
    ) -> None:
        self._optimizer = optimizer
        self._clip = clip
        self._bounds = bounds
        self._updates = 0
        self._arrivals = 0
        self._apply_gradients = optimizer._backend_apply_gradients
        self._update = optimizer._backend_update_step
        self._all_reduce = getattr(optimizer, "_all_reduce_sum_gradients", None)
        if optimizer.gradient_accumulation_steps:
            keras_private.check_accumulation_names(optimizer)
        keras_private.replace_methods(
            optimizer,
            _backend_apply_gradients=self._arrive,
            _backend_update_step=self._clip_and_update,
            _backend_reset_gradient_accumulators=partial(
                keras_private.reset_accumulators, optimizer
            ),
            # Keras reduces inside the update, where the gradients are reduced by then.
            _all_reduce_sum_gradients=keras_private.already_reduced,
        )

    def _arrive(self, gradients: Gradients, variables: list[Variable]) -> None:
        self._arrivals += 1
        if not replicated_accumulation.is_needed(self._optimizer):
            self._apply_gradients(gradients, variables)
            return
        replicated_accumulation.accumulate_or_update(
            self._optimizer,
            backend.all_reduce(self._all_reduce, gradients, variables),
            variables,
            lambda latest: self._clip_reduced_and_update(
                keras_private.averages(self._optimizer, latest, variables),
                variables,
                self._optimizer.learning_rate,
            ),
        )

    def _clip_and_update(
        self, gradients: Gradients, variables: list[Variable], learning_rate: Tensor
    ) -> None:
        self._updates += 1
        reduced = backend.all_reduce(self._all_reduce, gradients, variables)
        self._clip_reduced_and_update(reduced, variables, learning_rate)

    def _clip_reduced_and_update(
        self, reduced: list[Gradient], variables: list[Variable], learning_rate: Tensor
    ) -> None:
        known = keras_private.keras_variables(self._optimizer, variables)
        clipped, _ = self._clip(reduced, known)
        self._update(clipped, variables, learning_rate)
        project(self._optimizer, self._bounds)

    def apply(self, gradients: list[Gradient], variables: list[Variable] | None) -> None:
        """Run the optimizer's `apply` and make sure that it came by here."""
        before = self._visits()
        self._optimizer.apply(gradients, variables)
        if self._visits() == before and not self._only_overwrites(variables):
            raise RuntimeError(keras_private.never_came(self._optimizer))

    def _visits(self) -> int:
        # On a micro-batch in eager mode Keras arrives, but does not update.
        accumulates = self._optimizer.gradient_accumulation_steps
        return self._arrivals if accumulates else self._updates

    def _only_overwrites(self, variables: list[Variable] | None) -> bool:
        known = variables or keras_private.trainable_variables(self._optimizer)
        return all(keras_private.is_overwritten_by_gradient(variable) for variable in known)
