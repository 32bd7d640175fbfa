"""An error about values that the host may read."""

from collections.abc import Callable, Sequence

from keras_clip.types import Tensor


def raise_where(
    fatal: Tensor, error: Callable[[Sequence[str]], Exception], names: Sequence[str], flags: Tensor
) -> None:
    """Raise `error` of the names that are flagged, if `fatal` is true."""
    if bool(fatal):
        raise error([name for name, flag in zip(names, flags, strict=True) if bool(flag)])
