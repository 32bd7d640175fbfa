"""Several clippers, one after another."""

from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_clip.clippers.clipped import Clipped, as_clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.registry import deserialize, get_member, serialize
from keras_clip.clippers.update import Update
from keras_clip.types import Tensor, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class Chain(Clipper):
    """Apply each clipper to the result of the one before it.

    `clipped = clip_n(... clip_2(clip_1(g)))`

    A list means the same wherever a clipper is expected:
    `clipper=[ClipByValue(5.0), ClipByGlobalNorm(1.0)]`.

    Args:
        clippers: list or tuple of at least one clipper, each an instance, a name or a config.

    Raises:
        TypeError: `clippers` is not a list, or an item is not a clipper.
        ValueError: `clippers` is empty, or holds one clipper twice.

    Example:
        >>> import keras_clip
        >>> chain = [keras_clip.ClipByValue(5.0), keras_clip.ClipByGlobalNorm(1.0)]
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=chain)
        >>> optimizer.clipper.members[1].max_norm
        1.0
    """

    def __init__(self, clippers: Sequence[Any]) -> None:
        if not isinstance(clippers, list | tuple):
            raise TypeError(f"Chain takes a list of clippers. Received: clippers={clippers!r}.")
        self._members = tuple(get_member(clipper, "Chain") for clipper in clippers)
        if not self._members or len({id(m) for m in self._members}) < len(self._members):
            raise ValueError(
                "Chain takes at least one clipper, and each instance once, as it has state. "
                f"Received: clippers={clippers!r}."
            )

    @property
    def members(self) -> Sequence[Clipper]:
        """The clippers, in their order."""
        return self._members

    def build(self, variables: Sequence[Variable]) -> None:
        """Build each clipper."""
        for index, member in enumerate(self._members):
            self.build_member(member, f"chain_{index}", variables)

    def clip(self, update: Update) -> Clipped:
        """Apply the clippers one after another; the record shows the threshold of the last."""
        for member in self._members:
            clipped = as_clipped(member.clip(update))
            update = update.with_gradients(list(clipped.gradients))
        return clipped

    @property
    def has_running_threshold(self) -> bool:
        """Whether the first clipper has a running threshold."""
        return self._members[0].has_running_threshold

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return that of the first clipper, which alone sees the unclipped gradients."""
        return self._members[0].running_threshold(update)

    def get_config(self) -> dict[str, Any]:
        """Return the configs of the clippers."""
        return {"clippers": [serialize(m) for m in self._members]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the chain that `get_config` described."""
        return cls([deserialize(c) for c in config["clippers"]])
