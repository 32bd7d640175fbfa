"""The functions of the torch backend."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from keras_clip._seam.backend import Backend
from keras_clip._seam.torch import assignments, changes, control_flow, host, norms, scaling
from keras_clip._seam.torch import gradients as torch_gradients
from keras_clip.types import FactorPair, Gradient, Gradients, Tensor, Variable


class TorchBackend(Backend):
    """Each process has the whole gradients, because DistributedDataParallel averages them."""

    SPARSE_KIND = "a sparse torch tensor"

    def as_gradient(self, value: Any) -> Gradient:
        return torch_gradients.as_gradient(value)

    def is_sparse(self, gradient: Gradient) -> bool:
        return torch_gradients.is_sparse(gradient)

    def values(self, gradient: Gradient) -> Tensor:
        return torch_gradients.values(gradient)

    def map_values(self, gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
        return torch_gradients.map_values(gradient, function)

    def norm_operand(self, gradient: Gradient) -> Tensor:
        return torch_gradients.norm_operand(gradient)

    def global_norm(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.global_norm(operands, dtype)

    def change_norm(self, now: Sequence[Tensor], before: Sequence[Tensor], dtype: str) -> Tensor:
        return changes.change_norm(now, before, dtype)

    def norms(self, operands: Sequence[Tensor], dtype: str) -> Tensor:
        return norms.norms(operands, dtype)

    def scale_to_norm(
        self,
        gradients: Gradients,
        norm: Tensor,
        max_norm: Tensor,
        overwritable: Sequence[Variable],
        norm_type: float = 2.0,
    ) -> list[Gradient]:
        return scaling.scale_to_norm(gradients, norm, max_norm, overwritable, norm_type)

    def scale_each_to_norm(
        self,
        gradients: Gradients,
        norms: Tensor,
        limits: Tensor,
        overwritable: Sequence[Variable],
    ) -> list[Gradient]:
        return scaling.scale_each_to_norm(gradients, norms, limits, overwritable)

    def where(self, condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
        # `torch.where` copies a number to the device, and the host waits for that.
        is_number = not isinstance(other, torch.Tensor)
        return torch.where(condition, one, one.new_full((), other) if is_number else other)

    def stack(self, scalars: Sequence[Tensor]) -> Tensor:
        return torch.stack([host.on(scalars[0].device, scalar) for scalar in scalars])

    def constant(self, array: Any, like: Tensor) -> Tensor:
        return host.constant(array, like)

    def compiled(self, function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
        del static
        return control_flow.compiled(function)

    def choose(
        self, predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]
    ) -> Any:
        return control_flow.choose(predicate, quick, general)

    def is_known_to_hold(self, condition: Tensor) -> bool:
        return control_flow.is_known_to_hold(condition)

    def can_raise(self, tensor: Tensor, may_wait: bool) -> bool:
        del may_wait
        return host.can_read(tensor)

    def run_unless(
        self,
        condition: Tensor,
        body: Callable[..., None],
        otherwise: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        control_flow.run_unless(condition, body, otherwise, arguments, variables)

    def accumulate_or_update(
        self,
        is_micro_batch: Tensor,
        update: Callable[..., None],
        accumulate: Callable[..., None],
        arguments: tuple[Any, ...],
        variables: Sequence[Variable],
    ) -> None:
        del variables
        # When Keras accumulates on torch, it also reads its counter on the host.
        accumulate(*arguments) if bool(is_micro_batch) else update(*arguments)

    def no_gradients(self, gradients: Gradients = ()) -> AbstractContextManager[Any]:
        if any(gradient.requires_grad for gradient in gradients):
            return nullcontext()
        context: AbstractContextManager[Any] = torch.no_grad()
        return context

    def clamp(self, variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
        assignments.clamp(variables, bounds)

    def values_to_keep(self, variables: Sequence[Variable]) -> list[Tensor]:
        return assignments.values_to_keep(variables)

    def shrink_changes(
        self, variables: Sequence[Variable], before: Sequence[Tensor], factors: Sequence[FactorPair]
    ) -> None:
        changes.shrink_changes(variables, before, factors)

    def write_row(self, variable: Variable, index: Tensor, row: Tensor) -> None:
        assignments.write_row(variable, index, row)

    def count_up(self, variable: Variable) -> None:
        assignments.count_up(variable)

    def whole_loss(self, loss: Tensor) -> Tensor:
        # No sum over processes: some of a group may train a model by themselves.
        return torch.as_tensor(loss).detach().float().mean()

    def process_count(self, variable: Variable) -> int:
        del variable
        group = torch.distributed
        return group.get_world_size() if group.is_available() and group.is_initialized() else 1
