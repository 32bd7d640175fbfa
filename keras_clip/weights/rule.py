"""The base class of rules about weights."""

from keras_clip.arguments.call_text import call_text


class Rule:
    """Base class of `WeightClipping` and `UpdateClipping`: it belongs to one optimizer."""

    _owner: str | None = None

    def __repr__(self) -> str:
        return call_text(self)

    def claim(self, owner: str) -> None:
        """Store the optimizer that it belongs to. Called by `ClippedOptimizer`."""
        self.check_unclaimed()
        self._owner = owner

    def check_unclaimed(self) -> None:
        """Raise if it already belongs to an optimizer, because two would share the threshold."""
        if self._owner is not None:
            raise ValueError(
                f"This {type(self).__name__} belongs to the optimizer {self._owner!r} already. "
                "Make a new one for each optimizer."
            )
