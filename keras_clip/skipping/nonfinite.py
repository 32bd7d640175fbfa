"""The policies for gradients that are not finite, and their checks."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from keras import ops

from keras_clip._seam import backend
from keras_clip.clippers import Clipper
from keras_clip.norms.global_norm import norm_of_tensors
from keras_clip.skipping.outliers import Outliers
from keras_clip.types import Gradient, Tensor

NonFinitePolicy: TypeAlias = Literal["propagate", "skip", "zero", "raise"]

# Number of names in an error. It is fixed, so the shape of the state is the same for all models.
MOST_NAMES = 20

POLICIES: tuple[str, ...] = get_args(NonFinitePolicy)


def check_policy(nonfinite: Any) -> None:
    """Raise if `nonfinite` is not one of `POLICIES`."""
    if nonfinite not in POLICIES:
        raise ValueError(
            "nonfinite must be 'propagate' (the step shows the NaN), 'skip' (the update is not "
            "applied), 'zero' (such entries become 0, then the gradients are clipped) or 'raise' "
            f"(an error names the variables). Received: nonfinite={nonfinite!r}."
        )


def check_limit(max_consecutive_skips: Any, may_skip: bool) -> None:
    """Raise if it is not a number of updates, or if no option skips updates."""
    if max_consecutive_skips is None:
        return
    is_integer = isinstance(max_consecutive_skips, int)
    if not is_integer or isinstance(max_consecutive_skips, bool) or max_consecutive_skips < 1:
        raise ValueError(
            "max_consecutive_skips must be an integer of at least 1, or None for no limit. "
            f"Received: max_consecutive_skips={max_consecutive_skips!r}."
        )
    if not may_skip:
        raise ValueError(
            "max_consecutive_skips limits skipped updates, and no option here skips any. Set "
            "nonfinite='skip' or skip_above as well, or leave it out. Received: "
            f"max_consecutive_skips={max_consecutive_skips!r}."
        )


def check_skip_above(skip_above: Any, clipper: Clipper) -> None:
    """Raise if the clipper has no threshold that `skip_above` can multiply."""
    if skip_above is None or isinstance(skip_above, Outliers):
        return
    if not clipper.has_running_threshold:
        raise ValueError(
            "skip_above is a multiple of the clipper's threshold for one norm, and "
            f"{type(clipper).__name__} has none. Use ClipByGlobalNorm, AutoClip or ZClip, or "
            "skip_above=keras_clip.Outliers(), which works with every clipper. "
            f"Received: skip_above={skip_above!r}."
        )


def zero_nonfinite_entries(
    gradients: list[Gradient], global_norm: Tensor
) -> tuple[list[Gradient], Tensor]:
    """Replace NaN and infinite entries by 0 if `global_norm` is not finite.

    Returns the gradients and their norm.
    """
    zeroed, norm = _compiled_zero(gradients, global_norm)
    return list(zeroed), norm


def _zero(gradients: list[Gradient], global_norm: Tensor) -> tuple[list[Gradient], Tensor]:
    def zeroed() -> tuple[list[Gradient], Tensor]:
        finite = [backend.map_values(gradient, _finite_or_zero) for gradient in gradients]
        return finite, ops.cast(norm_of_tensors(finite), global_norm.dtype)

    # Finite gradients stay the same bit for bit.
    chosen: tuple[list[Gradient], Tensor] = backend.choose(
        ops.isfinite(global_norm), lambda: (list(gradients), global_norm), zeroed
    )
    return chosen


_compiled_zero = backend.compiled(_zero, ())


def _finite_or_zero(values: Tensor) -> Tensor:
    return ops.where(ops.isfinite(values), values, ops.zeros_like(values))


def flags_of_nonfinite(gradients: Sequence[Gradient]) -> list[Tensor]:
    """Return 1 for each gradient with a NaN or infinite entry, and 0 for the others."""
    return [
        ops.cast(ops.logical_not(ops.all(ops.isfinite(backend.values(gradient)))), "int32")
        for gradient in gradients
    ]


def first_places(flags: Sequence[Tensor]) -> Tensor:
    """Return the positions of the first flags, padded with -1."""
    flagged = ops.stack(list(flags))
    places = backend.constant(np.arange(len(flags), dtype="int32"), like=flagged)
    beyond = ops.zeros_like(places) + len(flags)
    found = ops.sort(ops.where(flagged > 0, places, beyond))[:MOST_NAMES]
    found = ops.where(found == len(flags), ops.zeros_like(found) - 1, found)
    missing = np.full(max(0, MOST_NAMES - len(flags)), -1, dtype="int32")
    return ops.concatenate([found, backend.constant(missing, like=found)])
