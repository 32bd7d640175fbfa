"""Updates that are not applied: which, how many, and when they are too many."""

import warnings
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_clip._seam import backend
from keras_clip.layers.paths import path_of
from keras_clip.skipping.nonfinite import (
    NonFiniteGradientError,
    NonFinitePolicy,
    TooManySkipsError,
    check_limit,
    check_policy,
    flags_of_nonfinite,
)
from keras_clip.types import Gradient, Tensor, Variable

_CALLBACK = "keras_clip.RaiseOnNonFinite"


class Skipping:
    """Decides which updates are skipped, counts them, and raises where they are too many.

    Args:
        nonfinite: what is done about gradients that are not finite.
        max_consecutive_skips: int, how many updates in a row may be skipped, or None.
        skips_above: whether updates are skipped for the size of their norm as well.
    """

    def __init__(
        self,
        nonfinite: NonFinitePolicy,
        max_consecutive_skips: int | None,
        skips_above: bool,
    ) -> None:
        check_policy(nonfinite)
        self.nonfinite = nonfinite
        self.skips_nonfinite = nonfinite in ("skip", "raise")
        check_limit(max_consecutive_skips, skips_above or nonfinite == "skip")
        self.max_consecutive_skips = max_consecutive_skips
        self._is_watched = False
        self.skipped_steps: Any = None  # made by `build`

    def build(self, wrapper: Any, variables: Sequence[Variable]) -> None:
        """Create the counters, as variables of `wrapper`.

        All of them whatever is asked for: so a run that meets its first NaN is resumed with
        another policy.
        """
        self._paths = [path_of(variable) for variable in variables]
        self._positions = {id(variable): index for index, variable in enumerate(variables)}

        def add(shape: tuple[int, ...], name: str) -> Variable:
            return wrapper.add_variable(
                shape, dtype="int32", aggregation="only_first_replica", name=name
            )

        self.skipped_steps = add((), "skipped_steps")
        self.consecutive_skips = add((), "consecutive_skips")
        self.zeroed_steps = add((), "zeroed_steps")
        self.nonfinite_variables = add((len(self._paths),), "nonfinite_variables")

    @property
    def names_gradients(self) -> bool:
        """Whether `on_skip` looks for those that are not finite."""
        return self._limit is not None

    @property
    def _limit(self) -> int | None:
        return 0 if self.nonfinite == "raise" else self.max_consecutive_skips

    def count_zeroed(self, is_finite: Tensor, is_update: Tensor | None) -> None:
        """Count an update of which entries became 0."""
        zeroed = _on_updates(ops.logical_not(is_finite), is_update)
        self.zeroed_steps.assign(self.zeroed_steps + ops.cast(zeroed, "int32"))

    def decide(
        self, is_finite: Tensor, is_above: Tensor | None, is_update: Tensor | None
    ) -> Tensor:
        """Return whether to skip the update, and count it."""
        not_finite = ops.logical_not(is_finite)
        if not self.skips_nonfinite:
            not_finite = ops.zeros_like(not_finite)
        skip = not_finite if is_above is None else ops.logical_or(is_above, not_finite)
        skip, not_finite = (_on_updates(flag, is_update) for flag in (skip, not_finite))
        self.skipped_steps.assign(self.skipped_steps + ops.cast(skip, "int32"))
        self.consecutive_skips.assign(self._counted(skip, not_finite, is_update))
        return skip

    def _counted(self, skip: Tensor, not_finite: Tensor, is_update: Tensor | None) -> Tensor:
        count = self.consecutive_skips.value
        if self.nonfinite == "raise":
            # Kept until it is raised: a callback may look only after some more updates.
            return count + ops.cast(not_finite, "int32")
        counted = ops.where(skip, count + 1, ops.zeros_like(count))
        if self._limit is not None:
            # Likewise: a good update does not undo that there were too many.
            counted = ops.where(count > self._limit, count, counted)
        return counted if is_update is None else ops.where(is_update, counted, count)

    def on_skip(self, gradients: list[Gradient], variables: list[Variable]) -> None:
        """Note which gradients are not finite, and raise if that can be done from here."""
        if not self.names_gradients:
            return
        flags = [ops.zeros((), "int32")] * len(self._paths)
        for flag, variable in zip(flags_of_nonfinite(gradients), variables, strict=True):
            flags[self._positions[id(variable)]] = flag
        noted = ops.stack(flags)
        self.nonfinite_variables.assign(noted)
        fatal = self.consecutive_skips.value > self._limit
        # The error of a graph is TensorFlow's own, and worse to read than ours.
        may_wait = self._is_watched
        try:
            raises = backend.raise_where(fatal, self._error, self._paths, noted, may_wait)
        except (NonFiniteGradientError, TooManySkipsError):
            self._start_anew()
            raise
        if not raises:
            self._warn_unless_watched()

    def _start_anew(self) -> None:
        """Raise each error once: whoever mends the cause may go on."""
        self.consecutive_skips.assign(ops.zeros((), "int32"))

    def _error(self, names: Sequence[str]) -> Exception:
        concerned = f"Not finite are the gradients of: {', '.join(names)}"
        if self.nonfinite == "raise":
            return NonFiniteGradientError(
                "Gradients are NaN or infinite, and nonfinite='raise'. The update was not "
                f"applied. {concerned}"
            )
        return TooManySkipsError(
            f"More than max_consecutive_skips={self.max_consecutive_skips} updates in a row were "
            "skipped, so that nothing is learned any more. Lower the learning rate, look at the "
            "data of these steps, or resume from an earlier checkpoint. " + concerned
        )

    def _warn_unless_watched(self) -> None:
        if self._is_watched:
            return
        self._is_watched = True
        warnings.warn(
            "This step is compiled, and what compiles it (XLA, torch.compile) or the device it "
            "runs on cannot raise: updates are skipped and the error waits. In fit, add "
            f"callbacks=[{_CALLBACK}()], which raises it at the end of the batch; in a loop of "
            "your own, call optimizer.raise_if_nonfinite() before the first step and whenever the "
            "host may wait for the device.",
            stacklevel=2,
        )

    def raise_if_due(self) -> None:
        """Raise what a compiled step could not."""
        self._is_watched = True
        if self.skipped_steps is None or self._limit is None:
            return
        if int(self.consecutive_skips.numpy()) <= self._limit:
            return
        self._start_anew()
        flags = self.nonfinite_variables.numpy()
        raise self._error([path for path, flag in zip(self._paths, flags, strict=True) if flag])


def _on_updates(condition: Tensor, is_update: Tensor | None) -> Tensor:
    return condition if is_update is None else ops.logical_and(condition, is_update)
