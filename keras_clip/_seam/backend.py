"""The functions that a Keras backend supplies, and their defaults."""

import abc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from keras import ops

from keras_clip.norms import floating_point
from keras_clip.types import FactorPair, Gradient, Gradients, Tensor, Variable


class Backend(abc.ABC):
    """The operations that differ between TensorFlow, JAX and torch.

    The defaults are for one device and for a program without decisions on the host.
    """

    SPARSE_KIND: ClassVar[str] = "a sparse gradient"
    """The name of the backend's sparse gradient, for an error message."""

    may_keep_loss: ClassVar[bool] = True
    """Whether the loss that `scale_loss` receives is a value of the step that calls `apply`."""

    # Gradients

    @abc.abstractmethod
    def as_gradient(self, value: Any) -> Gradient:
        """Convert `value` to a dense or sparse gradient of this backend."""

    @abc.abstractmethod
    def is_sparse(self, gradient: Gradient) -> bool:
        """Return whether `gradient` stores only some rows or entries."""

    @abc.abstractmethod
    def values(self, gradient: Gradient) -> Tensor:
        """Return the tensor, or the stored values of a sparse gradient."""

    @abc.abstractmethod
    def map_values(self, gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
        """Apply `function` to the values of `gradient` and keep its kind."""

    @abc.abstractmethod
    def norm_operand(self, gradient: Gradient) -> Tensor:
        """Return a dense tensor with the norm of `gradient`: repeated rows are summed."""

    def with_rows_summed(self, gradient: Gradient) -> Gradient:
        """Return the gradient with repeated rows summed; Keras makes them on TensorFlow only."""
        return gradient

    def row_totals(self, gradient: Gradient) -> tuple[Tensor, Tensor]:
        """Return for each stored row the sum of all rows with its index, and the indices."""
        raise TypeError(
            "This clipper reads single entries or rows of a gradient. It cannot read "
            f"{self.SPARSE_KIND}: Keras itself makes no sparse gradients on this backend. Clip by "
            "norm instead, or make the gradient dense before you pass it to the optimizer."
        )

    # Norms and scaling

    @abc.abstractmethod
    def global_norm(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        """Return the norm over all operands in `dtype`, for any magnitude."""

    @abc.abstractmethod
    def norms(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        """Return the norm of each operand, as one vector in `dtype`, for any magnitude."""

    def change_norm(self, now: Sequence[Tensor], before: Sequence[Tensor], dtype: str) -> Tensor:
        """Return the norm over all differences `now - before`; see `global_norm`."""
        return self.global_norm(floating_point.differences(now, before), dtype)

    @abc.abstractmethod
    def scale_to_norm(
        self,
        gradients: Gradients,
        norm: Tensor,
        max_norm: Tensor,
        overwritable: Sequence[Variable],
        norm_type: float = 2.0,
    ) -> list[Gradient]:
        """Multiply all gradients by `min(1, max_norm / norm)`.

        If `overwritable` holds their variables, torch may scale each `.grad` in place. A norm
        above the range is measured again, as the `norm_type`-norm of smaller gradients.
        """

    @abc.abstractmethod
    def scale_each_to_norm(
        self,
        gradients: Gradients,
        norms: Tensor,
        limits: Tensor,
        overwritable: Sequence[Variable],
    ) -> list[Gradient]:
        """Multiply each gradient by `min(1, limits_i / norms_i)`; see `scale_to_norm`."""

    # Tensors

    @abc.abstractmethod
    def where(self, condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """Choose entry by entry between tensors of one dtype, without the checks of Keras.

        `other` may be a Python number.
        """

    @abc.abstractmethod
    def stack(self, scalars: Sequence[Tensor]) -> Tensor:
        """Return scalars of one dtype as one vector."""

    def constant(self, array: Any, like: Tensor) -> Tensor:
        """Return a NumPy array as a tensor on the device of `like`."""
        del like
        return ops.convert_to_tensor(array)

    # Control flow

    @abc.abstractmethod
    def compiled(self, function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        """Return `function`, compiled if that keeps its decisions on the device.

        The arguments at the positions `static` are not tensors.
        """

    @abc.abstractmethod
    def choose(
        self, predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]
    ) -> Any:
        """Return `quick()` if the scalar `predicate` is true, else `general()`.

        `general` must be right in both cases: it may run in place of `quick`.
        """

    def is_known_to_hold(self, condition: Tensor) -> bool:
        """Return whether a scalar is true and the host can read it without waiting."""
        del condition
        return False

    @abc.abstractmethod
    def run_unless(
        self,
        condition: Tensor,
        body: Callable[..., None],
        otherwise: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        """Run `otherwise(*arguments)` if the scalar is true, else `body(*arguments)`.

        Both may assign `variables` only.
        """

    def accumulate_or_update(
        self,
        is_micro_batch: Tensor,
        update: Callable[..., None],
        accumulate: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        """Run `accumulate(*arguments)` if the scalar is true, else `update(*arguments)`."""
        self.run_unless(is_micro_batch, update, accumulate, arguments, variables)

    @abc.abstractmethod
    def can_raise(self, tensor: Tensor, may_wait: bool) -> bool:
        """Return whether an error that depends on `tensor` can be raised here.

        False in a compiled program, and if the host would have to wait for a device. False also
        if the error would cost a graph node and `may_wait` is true.
        """

    def raise_where(
        self,
        fatal: Tensor,
        error: Callable[[Sequence[str]], Exception],
        names: Sequence[str],
        flags: Tensor,
        after: Sequence[Tensor],
    ) -> None:
        """Raise `error(flagged names)` if the scalar is true, after `after` is computed."""
        del after
        if bool(fatal):
            raise error([name for name, flag in zip(names, flags, strict=True) if bool(flag)])

    def no_gradients(self, gradients: Gradients = ()) -> AbstractContextManager[Any]:
        """Return a context that does not record operations for differentiation.

        If one of `gradients` is recorded itself, as for meta-learning, it does record.
        """
        del gradients
        return nullcontext()

    # Variables

    @abc.abstractmethod
    def clamp(self, variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
        """Limit each variable to `[-bound, bound]`; values inside keep their bits."""

    def tensors(self, variables: Sequence[Variable]) -> list[Tensor]:
        """Return the values of the variables."""
        return [variable.value for variable in variables]

    def values_to_keep(self, variables: Sequence[Variable]) -> list[Tensor]:
        """Return the values of the variables, in tensors that later assignments do not change."""
        return self.tensors(variables)

    @abc.abstractmethod
    def shrink_changes(
        self, variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
    ) -> None:
        """Assign `before + share * (value - before)`, where a share is the product of two factors.

        Variables whose share is 1 keep their bits.
        """

    @abc.abstractmethod
    def write_row(self, variable: Variable, index: Tensor, row: Tensor) -> None:
        """Assign one row of a variable."""

    @abc.abstractmethod
    def count_up(self, variable: Variable) -> None:
        """Add 1 to a scalar integer variable."""

    # Devices and replicas

    def all_reduce(
        self,
        original: Callable[..., Any] | None,
        gradients: Gradients,
        variables: Sequence[Variable],
    ) -> list[Gradient]:
        """Return the gradients, summed over replicas.

        Args:
            original: Keras's own method of the wrapped optimizer, or None if it has none.
            gradients: list of gradients of one replica.
            variables: their variables.
        """
        del original, variables
        return list(gradients)

    def whole_loss(self, loss: Tensor) -> Tensor:
        """Return the loss of the whole batch, as a scalar.

        On replicas, the losses are parts of a sum, as Keras makes them for its gradients.
        """
        return ops.mean(loss)

    def this_replica(self) -> int:
        """Return a number that differs between replicas whose steps run at once."""
        return 0

    def on_every_replica(self, flag: Tensor) -> Tensor:
        """Return whether a scalar is true on every replica."""
        return flag

    def decides_across_replicas(self) -> bool:
        """Return whether a conditional update must be decided once for all replicas."""
        return False

    def asynchronous_strategy(self) -> str | None:
        """Return the name of the current strategy if its workers do not wait for each other."""
        return None

    def process_count(self, variable: Variable) -> int:
        """Return the number of processes that train `variable`."""
        del variable
        return 1

    def on_every_device(self, rank: int) -> dict[str, Any]:
        """Return arguments for a new variable, so that a distribution does not shard it."""
        del rank
        return {}

    def scope_of(self, variable: Variable) -> AbstractContextManager[Any]:
        """Return a context in which new variables are distributed as `variable` is."""
        del variable
        return nullcontext()
