"""What the rules about weights have in common."""


class Rule:
    """Base class of `WeightClipping` and `UpdateClipping`: it belongs to one optimizer."""

    _owner: str | None = None

    def claim(self, owner: str) -> None:
        """Note the optimizer it belongs to. Called by `ClippedOptimizer`."""
        self.check_unclaimed()
        self._owner = owner

    def check_unclaimed(self) -> None:
        """Raise if another optimizer has it, whose threshold it would share."""
        if self._owner is not None:
            raise ValueError(
                f"This {type(self).__name__} belongs to the optimizer {self._owner!r} already. "
                "Make a new one for each optimizer."
            )
