"""The contract of a clipper."""

import abc
from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_clip._seam import backend
from keras_clip.arguments.call_text import call_text
from keras_clip.arguments.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.update import Update
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Tensor, Variable


class Clipper(abc.ABC):
    """Base class of all clippers of `ClippedOptimizer`.

    A subclass implements `clip`, creates its state in `build`, and returns its constructor
    arguments from `get_config`. Arguments declared as `Threshold` are already in the config. A
    clipper belongs to one optimizer.

    Raises:
        ValueError: it is given to a second optimizer.

    Example:
        >>> import keras, keras_clip
        >>> @keras.saving.register_keras_serializable("docs")
        ... class SignOnly(keras_clip.Clipper):
        ...     def clip(self, update):
        ...         return [keras.ops.sign(gradient) for gradient in update.gradients]
        >>> optimizer = keras_clip.ClippedOptimizer("sgd", clipper=SignOnly())
    """

    # Not inherited: a subclass may read the gradients after scaling them.
    _is_done_with_gradients = False

    # Whether `clip` uses the norms of single gradients at every update. Inherited: a wrong value is
    # slow, never incorrect.
    _needs_norms = False

    _owner: str | None = None
    _dtype = "float32"
    _variables: Sequence[Variable] = ()
    _number_of_thresholds = 0
    _prefix = ""

    def __repr__(self) -> str:
        return call_text(self)

    @abc.abstractmethod
    def clip(self, update: Update) -> list[Gradient] | Clipped:
        """Return the gradients to use in place of `update.gradients`, in their order.

        Return a list, or a `Clipped` with the threshold and the norm for the record.

        It is called once for each update, and once for a trace while a step is traced.
        `update.variables` lacks the variables without a gradient, and may have another order
        than in `build`.

        It may assign variables created in `build`. The assignments persist for applied updates
        with a finite norm. They are undone for micro-batches of a gradient accumulation, for
        skipped updates, and for updates with a NaN or an infinity. It must neither read a value
        on the host nor keep anything in Python attributes.
        """

    def build(self, variables: Sequence[Variable]) -> None:  # noqa: B027 - most have no state
        """Create state with `self.add_variable`; called once, before the first update.

        Args:
            variables: the trainable variables, in the order of the optimizer's `build`.
        """

    @property
    def has_running_threshold(self) -> bool:
        """Whether there is a `running_threshold` that `skip_above` can multiply."""
        return type(self).running_threshold is not Clipper.running_threshold

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return the limited norm, and its limit before this update, as scalar tensors.

        A clipper that does not limit one single norm does not implement it. An infinite limit
        means that there is no limit yet.
        """
        raise NotImplementedError(f"{type(self).__name__} limits no single norm.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments, in JSON form."""
        return {name: held.get_config() for name, held in held_thresholds(self).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the clipper that `get_config` described."""
        arguments = {
            name: threshold_from_config(value) if _is_threshold(cls, name) else value
            for name, value in config.items()
        }
        return cls(**arguments)

    @property
    def dtype(self) -> str:
        """The dtype of norms in this model: float64 if it has float64 variables, else float32."""
        return self._dtype

    @property
    def needs_norms(self) -> bool:
        """Whether `clip` uses the norms of single gradients at every update."""
        return self._needs_norms

    @property
    def may_overwrite(self) -> bool:
        """Whether `clip` may scale gradients in place, because nothing reads them later."""
        return bool(vars(type(self)).get("_is_done_with_gradients", False))

    @property
    def members(self) -> Sequence["Clipper"]:
        """The clippers that this one is made of."""
        return ()

    @property
    def variables(self) -> list[Variable]:
        """Thresholds and state in order of creation, followed by those of the members."""
        return [*self._variables, *(v for member in self.members for v in member.variables)]

    @property
    def state(self) -> list[Variable]:
        """The variables created in `build`, without the thresholds."""
        own = self._variables[self._number_of_thresholds :]
        return [*own, *(v for member in self.members for v in member.state)]

    def add_variable(
        self,
        shape: tuple[int, ...],
        *,
        initializer: Any = "zeros",
        dtype: str | None = None,
        name: str,
    ) -> Variable:
        """Create a variable that is saved, restored and replicated with the optimizer.

        Args:
            shape: tuple of int, which never changes.
            initializer: name or instance of a Keras initializer. Defaults to zeros.
            dtype: str. Defaults to the dtype of norms: float64 if the model has float64
                variables, else float32.
            name: str, name of the state in a file, unique within the clipper. It has no dot,
                because a dot separates a clipper from its members.

        Raises:
            RuntimeError: it is called outside `build`.
            ValueError: the name is taken, or has a dot.
        """
        if not isinstance(self._variables, list):
            raise RuntimeError(
                f"{type(self).__name__}.add_variable(name={name!r}) was called outside `build`. "
                "State is created in `build`, when the optimizer is built, so that it is "
                "placed with the optimizer's own variables."
            )
        full_name = self._prefix + name
        if "." in name or any(full_name == variable.name for variable in self._variables):
            raise ValueError(
                f"The name of a variable must have no dot and be new to {type(self).__name__}, "
                f"whose state is saved by it. Received: name={name!r}, beside "
                f"{[variable.name.removeprefix(self._prefix) for variable in self._variables]}."
            )
        variable = keras.Variable(
            keras.initializers.get(initializer),
            shape=shape,
            dtype=dtype or self._dtype,
            trainable=False,
            # Every replica computes the same state from the same gradients.
            aggregation="only_first_replica",
            name=full_name,
            **backend.on_every_device(len(shape)),
        )
        self._variables.append(variable)
        return variable

    def claim(self, owner: str) -> None:
        """Store the optimizer that it belongs to. Called by `ClippedOptimizer`."""
        self.check_unclaimed()
        self._owner = owner
        for member in self.members:
            member.claim(owner)

    def check_unclaimed(self) -> None:
        """Raise if it already belongs to an optimizer, because two would share the state."""
        if self._owner is not None:
            raise ValueError(
                f"This {type(self).__name__} belongs to the optimizer {self._owner!r} already, "
                "and its state cannot serve two. Make a new one for each optimizer."
            )
        for member in self.members:
            member.check_unclaimed()

    def build_for(self, variables: Sequence[Variable]) -> None:
        """Run `build`, which may add variables. Called by `ClippedOptimizer`."""
        self._dtype = floating_point.accumulation_dtype(variables)
        self._variables = []
        for held in held_thresholds(self).values():
            held.build(self)
        self._number_of_thresholds = len(self._variables)
        self.build(variables)

    def build_member(self, member: "Clipper", name: str, variables: Sequence[Variable]) -> None:
        """Build a member; its state is saved under the unique `name`."""
        member._prefix = f"{self._prefix}{name}."
        member.build_for(variables)


def _is_threshold(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), Threshold)
