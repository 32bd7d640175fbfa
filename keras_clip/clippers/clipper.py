"""The contract of a clipper."""

import abc
from collections.abc import Sequence
from typing import Any, Self

import keras

from keras_clip._seam import backend
from keras_clip.clippers.clipped import Clipped
from keras_clip.clippers.update import Update
from keras_clip.norms import floating_point
from keras_clip.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.types import Gradient, Tensor, Variable


class Clipper(abc.ABC):
    """Base class of everything that `ClippedOptimizer` takes as its `clipper`.

    A subclass implements `clip`, creates the state it needs in `build`, and returns its
    constructor arguments from `get_config`. Arguments declared as `Threshold` are in the
    config already. A clipper belongs to one optimizer.

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

    # Said by each class for itself, as one derived from it may look at the gradients later on.
    _is_done_with_gradients = False

    # Whether `clip` asks for the norms of single gradients at every update. One derived from it may
    # inherit this: to be wrong takes time, no more.
    _needs_norms = False

    _owner: str | None = None
    _dtype = "float32"
    _variables: Sequence[Variable] = ()
    _number_of_thresholds = 0
    _prefix = ""

    @abc.abstractmethod
    def clip(self, update: Update) -> list[Gradient] | Clipped:
        """Return the gradients to use in place of `update.gradients`, in their order.

        A list, or a `Clipped` that tells the record what was used.

        Called once for each update the optimizer applies; while a step is traced, once for
        the trace. `update.variables` may be some of those given to `build`, in another order:
        variables without a gradient are left out.

        It may assign the variables made in `build`. What it assigns is kept for applied
        updates with a finite norm, and taken back for micro-batches of a gradient
        accumulation, for skipped updates and for updates with a NaN or an infinity. It may
        neither read a value on the host nor keep anything in Python attributes.
        """

    def build(self, variables: Sequence[Variable]) -> None:  # noqa: B027 - most have no state
        """Create state with `self.add_variable`; called once, before the first update.

        Args:
            variables: the trainable variables, in the order the optimizer was built with.
        """

    @property
    def has_running_threshold(self) -> bool:
        """Whether there is a `running_threshold` for `skip_above` to be a multiple of."""
        return type(self).running_threshold is not Clipper.running_threshold

    def running_threshold(self, update: Update) -> tuple[Tensor, Tensor]:
        """Return the norm that is limited, and the limit as it stands before this update.

        Two scalar tensors. A clipper that limits no single norm does not implement it.
        Infinity as a limit says that there is none yet.
        """
        raise NotImplementedError(f"{type(self).__name__} limits no single norm.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments, as JSON can hold them."""
        return {name: held.get_config() for name, held in held_thresholds(self).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the clipper that `get_config` described."""
        arguments = {
            name: threshold_from_config(value) if _is_threshold(cls, name) else value
            for name, value in config.items()
        }
        return cls(**arguments)

    @property
    def dtype(self) -> str:
        """The dtype norms have in this model: float64 if it has float64 variables."""
        return self._dtype

    @property
    def needs_norms(self) -> bool:
        """Whether `clip` asks for the norms of single gradients at every update."""
        return self._needs_norms

    @property
    def may_overwrite(self) -> bool:
        """Whether nobody looks at the gradients again, once `clip` has scaled them."""
        return bool(vars(type(self)).get("_is_done_with_gradients", False))

    @property
    def members(self) -> Sequence["Clipper"]:
        """The clippers this one is made of."""
        return ()

    @property
    def variables(self) -> list[Variable]:
        """Thresholds and state, in order of creation, those of members after its own."""
        return [*self._variables, *(v for member in self.members for v in member.variables)]

    @property
    def state(self) -> list[Variable]:
        """The variables that `clip` assigns: those made in `build`, not the thresholds."""
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
            shape: tuple of int, fixed for the clipper's life.
            initializer: name or instance of a Keras initializer. Defaults to zeros.
            dtype: Defaults to the one norms have: float64 if the model has float64
                variables, else float32.
            name: state is saved by it. It differs from the names of the clipper's other
                variables, and has no dot: a dot stands between a clipper and its members.

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
        """Note the optimizer it belongs to. Called by `ClippedOptimizer`."""
        self.check_unclaimed()
        self._owner = owner
        for member in self.members:
            member.claim(owner)

    def check_unclaimed(self) -> None:
        """Raise if another optimizer has it, whose state it would mix with."""
        if self._owner is not None:
            raise ValueError(
                f"This {type(self).__name__} belongs to the optimizer {self._owner!r} already, "
                "and its state cannot serve two. Make a new one for each optimizer."
            )
        for member in self.members:
            member.check_unclaimed()

    def build_for(self, variables: Sequence[Variable]) -> None:
        """Run `build` where it may add variables. Called by `ClippedOptimizer`."""
        self._dtype = floating_point.accumulation_dtype(variables)
        self._variables = []
        for held in held_thresholds(self).values():
            held.build(self)
        self._number_of_thresholds = len(self._variables)
        self.build(variables)

    def build_member(self, member: "Clipper", name: str, variables: Sequence[Variable]) -> None:
        """Build a clipper that this one is made of; `name` tells its state from others'."""
        member._prefix = f"{self._prefix}{name}."
        member.build_for(variables)


def _is_threshold(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), Threshold)
