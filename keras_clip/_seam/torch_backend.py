"""Norm and clip on torch."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import attrgetter
from typing import Any

import keras
import torch
from keras import ops

from keras_clip._seam import host_errors, keras_private, torch_norms
from keras_clip._seam.sparse import NO_SPARSE
from keras_clip._seam.torch_kept_gradients import are_kept_by
from keras_clip._seam.torch_shards import (
    any_sharded,
    is_sharded,
    map_shards,
    refuse_sharded,
    sharded_types,
    whole,
    with_norms_for_shards,
)
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor, Variable

UPDATES_ON_MICRO_STEPS = False

no_gradients = torch.no_grad

# Norms from here down may have lost squares to underflow: the root of the sum named in
# `floating_point.is_ordinary`.
_SMALLEST_ORDINARY_NORM = {torch.float32: 1e-10, torch.float64: 1e-145}


_HALF = (torch.float16, torch.bfloat16)

_Kind = tuple[torch.device, torch.dtype]

# torch counts them for the sake of automatic differentiation.
_writes = attrgetter("_version")


def as_gradient(value: Any) -> Gradient:
    """Return `value` as a tensor."""
    return value if isinstance(value, torch.Tensor) else ops.convert_to_tensor(value)


def is_sparse(gradient: Gradient) -> bool:
    """Whether it is a sparse tensor."""
    return bool(gradient.is_sparse)


def row_totals(gradient: Gradient) -> tuple[Tensor, Tensor]:
    """Refuse: Keras makes no sparse gradients on torch."""
    raise TypeError(NO_SPARSE.format(kind="a sparse torch tensor"))


def values(gradient: Gradient) -> Tensor:
    """Return the tensor, all of it if it is sharded, or the distinct values of a sparse one."""
    return gradient.coalesce().values() if is_sparse(gradient) else whole(gradient)


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the tensor, its shard, or the values of a sparse one, made distinct."""
    if not is_sparse(gradient):
        return map_shards(gradient, function)
    distinct = gradient.coalesce()
    return torch.sparse_coo_tensor(
        distinct.indices(), function(distinct.values()), distinct.shape, is_coalesced=True
    )


def norm_operand(gradient: Gradient) -> Tensor:
    """Values of `gradient`; of a sparse tensor, with repeated entries summed."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Square root of the sum of squares, for any magnitude."""
    accumulate = getattr(torch, dtype)
    operands = _unsharded(operands, dtype)
    if _decide_on_host(operands[0]):
        norm = torch_norms.norm(operands, accumulate)
        value = float(norm.detach())
        ordinary = _SMALLEST_ORDINARY_NORM[accumulate] <= value < float("inf")
        return norm if ordinary else floating_point.rescaled_norm(operands)
    if accumulate is torch.float64 or operands[0].device.type == "mps":
        # No wider type to add in: float64 is the widest, and MPS has none.
        return floating_point.rescaled_norm(operands)
    # In float64 no square of a float32 leaves the range, so that nothing is to decide.
    return _stacked_norm(torch._foreach_norm(list(operands), 2, dtype=torch.float64)).to(accumulate)


def _unsharded(operands: Sequence[Tensor], dtype: str) -> list[Tensor]:
    return with_norms_for_shards(operands, lambda shards: norms(shards, dtype))


def _decide_on_host(tensor: Tensor) -> bool:
    """Whether a Python `if` on a value costs nothing.

    On the CPU torch has computed the value by the time the call returns. On any other
    device reading it would stop the queue, and inside `torch.compile` split the graph.
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    # Even where there is nothing to do, `to` takes a microsecond, for each variable.
    return tensor if tensor.device == device else tensor.to(device)


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Norm of each operand, all rescaled where the squares of any leave the range."""
    accumulate = getattr(torch, dtype)
    operands = _unsharded(operands, dtype)
    if not _decide_on_host(operands[0]):
        if accumulate is torch.float64 or operands[0].device.type == "mps":
            return floating_point.rescaled_norms(operands, dtype)
        device = operands[0].device
        each = torch._foreach_norm(list(operands), 2, dtype=torch.float64)
        return torch.stack([norm.to(device) for norm in each]).to(accumulate)
    combined = torch_norms.norms(operands, accumulate)
    smallest, largest = _SMALLEST_ORDINARY_NORM[accumulate], float("inf")
    if bool(((combined >= smallest) & (combined < largest)).all()):
        return combined
    return floating_point.rescaled_norms(operands, dtype)


def _stacked_norm(norms: Sequence[Tensor]) -> Tensor:
    # Layers placed on several devices meet on the first one's.
    device = norms[0].device
    return torch.linalg.vector_norm(
        torch.stack([norm.to(device) for norm in norms]), dtype=torch.float64
    )


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    if not _decide_on_host(norm):
        in_place = are_kept_by(overwritable, gradients)
        return _multiplied(gradients, *floating_point.factors(norm, max_norm), in_place=in_place)
    # In Python, as for a small model each operation on a tensor counts.
    limit, known_norm = float(max_norm.detach()), float(norm.detach())
    if known_norm <= limit or math.isinf(limit):
        return list(gradients)
    # Where the norm is not finite all would become NaN, and nobody could find the one it was.
    in_place = math.isfinite(known_norm) and are_kept_by(overwritable, gradients)
    if norm.requires_grad or max_norm.requires_grad:
        # A number has no derivative.
        return _multiplied(
            gradients, *floating_point.two_factors(norm, max_norm), in_place=in_place
        )
    dtype = keras.backend.standardize_dtype(norm.dtype)
    both = floating_point.two_factors_of_numbers(known_norm, limit, dtype)
    factors = [torch.tensor(factor, dtype=norm.dtype) for factor in both if factor != 1.0]
    return _multiplied(gradients, *factors, in_place=in_place)


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    # A number has no derivative.
    if _decide_on_host(norms) and not (norms.requires_grad or limits.requires_grad):
        return _scaled_each_on_host(gradients, norms, limits, overwritable)
    in_place = are_kept_by(overwritable, gradients)
    first, second = floating_point.factors(norms, limits)
    return [
        _multiplied([gradient], first[place], second[place], in_place=in_place)[0]
        for place, gradient in enumerate(gradients)
    ]


def _scaled_each_on_host(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply in one call a factor those that are above their limit."""
    dtype = keras.backend.standardize_dtype(norms.dtype)
    factors: dict[int, tuple[float, float]] = {
        place: floating_point.two_factors_of_numbers(norm, limit, dtype)
        for place, (norm, limit) in enumerate(zip(norms.tolist(), limits.tolist(), strict=True))
        if not (norm <= limit or math.isinf(limit))
    }
    scaled = list(gradients)
    if not factors:
        return scaled
    in_place = are_kept_by(overwritable, gradients)
    for which in (0, 1):
        places = [place for place in factors if factors[place][which] != 1.0]
        own = [factors[place][which] for place in places]
        products = _multiplied_each([scaled[place] for place in places], own, norms, in_place)
        for place, product in zip(places, products, strict=True):
            scaled[place] = product
    return scaled


def _multiplied_each(
    gradients: Gradients, factors: Sequence[float], like: Tensor, in_place: bool
) -> list[Gradient]:
    products = list(gradients)
    for kind, positions in _by_kind(gradients).items():
        own = [gradients[position] for position in positions]
        numbers = [factors[position] for position in positions]
        if kind is None or kind[1] in _HALF:
            tensors = [torch.tensor(number, dtype=like.dtype) for number in numbers]
            scaled = [_multiplied_alone(g, [f]) for g, f in zip(own, tensors, strict=True)]
        elif in_place:
            torch._foreach_mul_(own, numbers)
            continue
        else:
            scaled = torch._foreach_mul(own, numbers)
        for position, product in zip(positions, scaled, strict=True):
            products[position] = product
    return products


def _multiplied(gradients: Gradients, *factors: Tensor, in_place: bool) -> list[Gradient]:
    """Multiply all dense tensors of one kind in one call a factor, the others one by one.

    Those in 16 bits are multiplied in 32 and never in place.
    """
    products = list(gradients)
    multiply = _multiply_in_place if in_place else torch._foreach_mul
    for kind, positions in _by_kind(gradients).items():
        scaled = [gradients[position] for position in positions]
        if kind is None or kind[1] in _HALF:
            scaled = [_multiplied_alone(gradient, factors) for gradient in scaled]
        else:
            for factor in factors:
                scaled = multiply(scaled, factor.to(*kind))
        for position, product in zip(positions, scaled, strict=True):
            products[position] = product
    return products


def _multiply_in_place(tensors: list[Tensor], factor: Tensor) -> list[Tensor]:
    torch._foreach_mul_(tensors, factor)
    return tensors


def _by_kind(tensors: Sequence[Tensor]) -> dict[_Kind | None, list[int]]:
    """Positions of the tensors that one call handles; by None, of sparse and sharded ones."""
    found = {tensor.device for tensor in tensors}, {tensor.dtype for tensor in tensors}
    may_be_alone = any(tensor.is_sparse for tensor in tensors) or any_sharded(tensors)
    if len(found[0]) == len(found[1]) == 1 and not may_be_alone:
        # The usual case, for which a thousand times the way below would be long.
        return {(found[0].pop(), found[1].pop()): list(range(len(tensors)))}
    kinds: dict[_Kind | None, list[int]] = {}
    sharded = sharded_types()
    for position, tensor in enumerate(tensors):
        is_alone = tensor.is_sparse or isinstance(tensor, sharded)
        kind = None if is_alone else (tensor.device, tensor.dtype)
        kinds.setdefault(kind, []).append(position)
    return kinds


def _multiplied_alone(gradient: Gradient, factors: Sequence[Tensor]) -> Gradient:
    def multiply(values: Tensor) -> Tensor:
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        for factor in factors:
            wide = wide * factor.to(wide.device)
        return wide.to(values.dtype)

    return multiply(gradient) if gradient.is_sparse else map_shards(gradient, multiply)


def constant(array: Any, like: Tensor) -> Tensor:
    """Return a NumPy array as a tensor on the device of `like`, for which nobody waits."""
    tensor = torch.from_numpy(array)
    if like.device.type != "cuda" or torch.compiler.is_compiling():
        return tensor.to(like.device)
    # Out of other memory than this the host copies by itself, once the queue is empty.
    return tensor.pin_memory().to(like.device, non_blocking=True)


def compiled(function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
    """Return `function`, for whole tensors: torch decides as it goes."""
    del static

    def run(*arguments: Any) -> Any:
        refuse_sharded(
            [tensor for listed in arguments if isinstance(listed, list) for tensor in listed]
        )
        return function(*arguments)

    return run


def choose(predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]) -> Any:
    """Decide where that costs nothing, and spare the question where it would."""
    return quick() if _decide_on_host(predicate) and bool(predicate) else general()


def is_known_to_hold(condition: Tensor) -> bool:
    """Whether the scalar is true, where to ask costs nothing."""
    return _decide_on_host(condition) and bool(condition)


def all_reduce(
    original: Callable[..., object] | None, gradients: Gradients, variables: Sequence[Variable]
) -> list[Gradient]:
    """Return `gradients`: DistributedDataParallel has averaged them in the backward pass."""
    del original, variables
    return list(gradients)


def replicas() -> int:
    """One: each process of a DistributedDataParallel has all of the gradients."""
    return 1


def on_every_replica(flag: Tensor) -> Tensor:
    """Return `flag`: see `replicas`."""
    return flag


def decides_across_replicas() -> bool:
    """No: see `replicas`."""
    return False


def on_every_device(rank: int) -> dict[str, Any]:
    """Return nothing: layouts are JAX's."""
    del rank
    return {}


def scope_of(variable: Variable) -> AbstractContextManager[object]:
    """Nothing to enter: strategies are TensorFlow's."""
    del variable
    return nullcontext()


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `body(*arguments)` or, where `condition` is true, `otherwise(*arguments)`."""
    if _decide_on_host(condition):
        otherwise(*arguments) if bool(condition) else body(*arguments)
        return
    # Both are run and one is kept: to read the condition would stop the queue of the device.
    with torch.no_grad():
        tensors = [variable.value for variable in variables]
        instead = _copies(tensors)
        changed = _changed_by(partial(otherwise, *arguments), tensors)
        outcomes = {position: tensors[position].clone() for position in changed}
        for position, outcome in outcomes.items():
            tensors[position].copy_(instead[position])
            instead[position] = outcome
        changed |= _changed_by(partial(body, *arguments), tensors)
        for position in changed:
            _assign_where(condition, instead[position], tensors[position])


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy all dense tensors of one kind in one call."""
    copies = list(tensors)
    for kind, positions in _by_kind(tensors).items():
        originals = [tensors[position] for position in positions]
        if kind is None:
            made = [tensor.clone() for tensor in originals]
        else:
            made = [torch.empty_like(tensor) for tensor in originals]
            torch._foreach_copy_(made, originals)
        for position, copy in zip(positions, made, strict=True):
            copies[position] = copy
    return copies


def _changed_by(function: Callable[[], None], tensors: Sequence[Tensor]) -> set[int]:
    """Run `function` and return the positions of the tensors that it may have written to."""
    before = [_version(tensor) for tensor in tensors]
    function()
    after = [_version(tensor) for tensor in tensors]
    return {i for i, version in enumerate(after) if version is None or version != before[i]}


def _version(tensor: Tensor) -> int | None:
    """How often a tensor has been written to; None where nobody counts."""
    if torch.compiler.is_compiling() or is_sharded(tensor):
        return None
    return int(_writes(tensor))


def _assign_where(condition: Tensor, value: Tensor, tensor: Tensor) -> None:
    condition = condition.to(tensor.device)
    if is_sharded(tensor):
        tensor.copy_(torch.where(condition, value, tensor))
    else:
        torch.where(condition, value, tensor, out=tensor)


def accumulate_or_update(
    is_micro_batch: Tensor,
    update: Callable[..., None],
    accumulate: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Ask the counter, as Keras itself does where it accumulates on torch."""
    del variables
    accumulate(*arguments) if bool(is_micro_batch) else update(*arguments)


def raise_where(
    fatal: Tensor,
    error: Callable[[Sequence[str]], Exception],
    names: Sequence[str],
    flags: Tensor,
    may_wait: bool,
) -> bool:
    """Raise where reading the values costs nothing."""
    del may_wait
    if not _decide_on_host(fatal):
        return False
    host_errors.raise_where(fatal, error, names, flags)
    return True


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Assign one after another."""
    for variable, bound in zip(variables, bounds, strict=True):
        variable.assign(_clamped(variable.value, bound))


def _clamped(value: Tensor, bound: Tensor) -> Tensor:
    return map_shards(value, lambda shard: floating_point.clamped(shard, bound))


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Copy into the tensor, at a place that the host need not know."""
    rows, is_own = _value_and_whether_own(variable)
    place = index.reshape(1).long()
    with torch.no_grad():
        row = _on(rows.device, row)[None]
        if is_own:
            rows.index_copy_(0, place, row)
        else:
            variable.assign(rows.index_copy(0, place, row))


def _value_and_whether_own(variable: Variable) -> tuple[Tensor, bool]:
    """Return a variable's value; in `stateless_apply` it is what the caller gave, and his."""
    value = variable.value
    return value, value is keras_private.tensor_of(variable)


def where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Choose entry by entry between tensors of one dtype."""
    return torch.where(condition, one, other)


def stack(scalars: Sequence[Tensor]) -> Tensor:
    """Without `keras.ops`, which first looks for what may be nested in the list."""
    return torch.stack([_on(scalars[0].device, scalar) for scalar in scalars])


def count_up(variable: Variable) -> None:
    """Add in place: to assign a new value goes through all of Keras's checks of it."""
    value, is_own = _value_and_whether_own(variable)
    with torch.no_grad():
        if is_own:
            value.add_(1)
        else:
            variable.assign(value + 1)
