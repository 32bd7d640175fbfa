"""Telling updates from the micro-batches between them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from keras import ops

from keras_clip._seam import backend, keras_private
from keras_clip._seam.multi_optimizer import built_members, is_multi_optimizer
from keras_clip.types import Optimizer, Tensor, Variable


def update_count(optimizer: Optimizer) -> Tensor:
    """Number of updates applied so far, micro-batches of an accumulation not counted."""
    return ops.convert_to_tensor(_counter(optimizer).iterations)


def is_update_step(optimizer: Optimizer) -> Tensor | None:
    """Whether the next `apply` updates the weights; None if each does."""
    return keras_private.is_update_step(_counter(optimizer))


def _counter(optimizer: Optimizer) -> Optimizer:
    # A MultiOptimizer counts micro-batches; its members, which update together, updates.
    return built_members(optimizer)[0] if is_multi_optimizer(optimizer) else optimizer


@contextmanager
def kept_on_updates_only(
    optimizer: Optimizer, variables: Sequence[Variable], may_run_on_micro_batches: bool
) -> Iterator[None]:
    """Take back what the body does to `variables`, unless `optimizer` updates in it.

    Where Keras runs the update on every micro-batch it takes back the effect on its own
    variables, of which these are none. A clip that is computed beforehand runs on each, too.
    """
    is_update = is_update_step(optimizer) if may_run_on_micro_batches else None
    if is_update is None:
        yield
        return
    with kept_where(is_update, variables):
        yield


@contextmanager
def kept_where(condition: Tensor, variables: Sequence[Variable]) -> Iterator[None]:
    """Take back what the body does to `variables` where `condition`, a scalar, is false."""
    if backend.is_known_to_hold(condition):
        yield
        return
    before = [ops.copy(variable) for variable in variables]
    yield
    for variable, old in zip(variables, before, strict=True):
        variable.assign(ops.where(condition, variable.value, old))
