"""The way of the loss of a step to the optimizer."""

from collections.abc import Sequence
from typing import Any

from keras_clip._seam import backend
from keras_clip.types import Gradients, Tensor


class SeenLoss:
    """Hands a loss from `scale_loss`, or from the caller, to the `apply` of the same step."""

    def __init__(self) -> None:
        self._losses: dict[int, Tensor] = {}  # by replica

    def see(self, loss: Tensor) -> None:
        """Store the loss of the step."""
        self._losses[backend.this_replica()] = loss

    def take(self, given: Tensor | None, is_read: bool) -> list[Tensor]:
        """Return the loss of the step, if it is read, and forget it.

        Args:
            given: the argument `loss`.
            is_read: whether the rule `skip_above` compares losses.

        Raises:
            ValueError: there is no loss and it is read, or one is given and not read.
        """
        if not is_read:
            self.check_unread(given)
            return []
        seen = self._losses.pop(backend.this_replica(), None)
        loss = seen if given is None else given
        if loss is None:
            raise ValueError(
                "skip_above=Outliers(of='loss') compares the loss of each step, and this step "
                "shows none to the optimizer. In a loop of your own, give it: "
                "optimizer.apply(gradients, variables, loss=loss), or stateless_apply(..., "
                "loss=loss). fit shows it on TensorFlow and torch, if the optimizer is not inside "
                "a LossScaleOptimizer or MultiOptimizer. Elsewhere use Outliers(of='norm'), and "
                "keras_clip.RollBack(), which reads the loss."
            )
        return [backend.whole_loss(loss)]

    def check_unread(self, given: Tensor | None) -> None:
        """Raise ValueError if a loss is given that no rule reads."""
        if given is not None:
            raise ValueError(
                "loss= is for skip_above=keras_clip.Outliers(of='loss') or of='both', and "
                "this optimizer has another skip_above. Leave loss out."
            )


class SeesLoss:
    """The methods of `ClippedOptimizer` that a loss passes through."""

    _skipping: Any

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scale the loss as the wrapped optimizer does, and show it to `skip_above`."""
        # On JAX, `fit` calls this inside the function that it differentiates: a tracer would leak.
        if self._skipping.reads_loss and backend.may_keep_loss:
            self._skipping.seen_loss.see(loss)
        return super().scale_loss(loss)  # type: ignore[misc]

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Tensor],
        grads: Gradients,
        trainable_variables: Sequence[Tensor],
        loss: Tensor | None = None,
    ) -> Any:
        """Return the new trainable variables and the new variables of the optimizer.

        `loss` is as in `apply`.
        """
        if self._skipping.reads_loss and loss is not None:
            self._skipping.seen_loss.see(loss)
        else:
            self._skipping.seen_loss.check_unread(loss)
        return super().stateless_apply(  # type: ignore[misc]
            optimizer_variables, grads, trainable_variables
        )
