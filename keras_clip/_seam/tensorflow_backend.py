"""Norm, clip and all-reduce on TensorFlow."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from keras_clip._seam import host_errors
from keras_clip._seam.tensorflow_groups import Groups
from keras_clip._seam.tensorflow_rows import half_sum_of_squares
from keras_clip.norms import floating_point
from keras_clip.types import Gradient, Gradients, Tensor, Variable

UPDATES_ON_MICRO_STEPS = False

# Whoever reads the error of a large model wants the first of them.
_NAMES_IN_A_MESSAGE = 20

# An optimizer is called outside the tape; one around it is the user's wish.
no_gradients = nullcontext


def as_gradient(value: Any) -> Gradient:
    """Return `value` as a tensor; slices stay slices, their indices become tensors."""
    if not isinstance(value, tf.IndexedSlices):
        return tf.convert_to_tensor(value)
    shape = value.dense_shape
    return tf.IndexedSlices(
        tf.convert_to_tensor(value.values),
        tf.convert_to_tensor(value.indices),
        None if shape is None else tf.convert_to_tensor(shape),
    )


def is_sparse(gradient: Gradient) -> bool:
    """Whether it is `tf.IndexedSlices`."""
    return isinstance(gradient, tf.IndexedSlices)


def norm_operand(gradient: Gradient) -> Tensor:
    """Values of `gradient`; of `tf.IndexedSlices` that name a row twice, its sum."""
    if not is_sparse(gradient):
        return gradient
    return _sum_repeated_rows(_widen(gradient.values), gradient.indices)[0]


def row_totals(gradient: Gradient) -> tuple[Tensor, Tensor]:
    """For each row of slices, the sum of all rows of its index; and the indices."""
    totals, segments = _sum_repeated_rows(_widen(gradient.values), gradient.indices)
    return tf.gather(totals, segments), gradient.indices


def _sum_repeated_rows(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """One row for each distinct index and zeros for the rest; and which row each went to."""
    # Sorting keeps every shape known, so that XLA compiles it; tf.unique it refuses.
    order = tf.argsort(indices)
    rows = tf.gather(indices, order)
    is_new_row = tf.cast(rows[1:] != rows[:-1], tf.int32)
    first = tf.zeros_like(rows[:1], tf.int32)
    segments = tf.concat([first, tf.cumsum(is_new_row)], axis=0)
    sums = tf.math.unsorted_segment_sum(
        tf.gather(values, order), segments, num_segments=tf.shape(indices)[0]
    )
    return sums, tf.gather(segments, tf.argsort(order))


def global_norm(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Square root of the sum of squares, rescaled only where squares leave the range."""
    return _compiled_if_eager(_global_norm, _compiled_global_norm)(list(operands), dtype)


def _global_norm(operands: list[Tensor], dtype: str) -> Tensor:
    operands = _groups(operands).joined(operands)
    sum_of_squares = 2.0 * tf.add_n(_half_sums(operands, dtype))
    return tf.cond(
        floating_point.is_ordinary(sum_of_squares),
        lambda: tf.sqrt(sum_of_squares),
        lambda: _as_one_node(_extreme_norm)(operands, dtype),
    )


def _extreme_norm(operands: list[Tensor], dtype: str) -> Tensor:
    """Norm whose sum of squares is not ordinary; each operation takes time to trace."""
    # What float32 holds has a square in float64, except on a TPU, whose programs XLA compiles.
    if dtype == "float64" or _is_compiled_by_xla():
        return tf.cast(floating_point.rescaled_norm(operands), dtype)
    halves = _half_sums(operands, "float64")
    return tf.cast(tf.sqrt(2.0 * tf.add_n(halves)), dtype)


def _half_sums(operands: Sequence[Tensor], dtype: str) -> list[Tensor]:
    # XLA divides the work by itself, and an accelerator would take two rows for little work.
    may_cut = not (_is_compiled_by_xla() or _has_accelerator())
    return [half_sum_of_squares(tf.cast(operand, dtype), may_cut) for operand in operands]


def norms(operands: Sequence[Tensor], dtype: str) -> Tensor:
    """Norm of each operand, all rescaled where the squares of any leave the range."""
    return _compiled_if_eager(_norms, _compiled_norms)(list(operands), dtype)


def _norms(operands: list[Tensor], dtype: str) -> Tensor:
    sums_of_squares = 2.0 * tf.stack(_half_sums(operands, dtype))
    return tf.cond(
        tf.reduce_all(floating_point.is_ordinary(sums_of_squares)),
        lambda: tf.sqrt(sums_of_squares),
        lambda: tf.stack([_extreme_norm([operand], dtype) for operand in operands]),
    )


def scale_to_norm(
    gradients: Gradients, norm: Tensor, max_norm: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply by `max_norm / norm` where there is anything to clip."""
    del overwritable
    scale = _compiled_if_eager(_scale_to_norm, _compiled_scale_to_norm)
    return list(scale(list(gradients), norm, max_norm))


def _scale_to_norm(gradients: list[Gradient], norm: Tensor, max_norm: Tensor) -> list[Gradient]:
    groups = _groups(gradients)
    return groups.split(_scale_joined_to_norm(groups.joined(gradients), norm, max_norm))


def _groups(gradients: list[Gradient]) -> Groups:
    # XLA compiles all operations into one program, where a stack is but one more copy.
    return Groups(gradients, may_stack=not _is_compiled_by_xla())


def _scale_joined_to_norm(
    gradients: list[Gradient], norm: Tensor, max_norm: Tensor
) -> list[Gradient]:
    first, second = floating_point.two_factors(norm, max_norm)
    one_or_two = tf.where(first < 1.0, 2, 1)
    # One choice of three rather than one within another: tracing takes time for each gradient
    # that goes into a branch and comes out.
    scaled: list[Gradient] = tf.switch_case(
        tf.where(floating_point.needs_no_clip(norm, max_norm), 0, one_or_two),
        [
            lambda: gradients,
            lambda: _cast_like(_multiplied(_widened(gradients), second), gradients),
            lambda: _as_one_node(_scaled_in_two)(gradients, first, second),
        ],
    )
    return scaled


def _scaled_in_two(gradients: list[Gradient], first: Tensor, second: Tensor) -> list[Gradient]:
    # Of two products TensorFlow's graph optimizer would make one with the product of both
    # factors. The first is a power of two, so that to divide by its inverse is the same.
    scaled = _multiplied(_divided(_widened(gradients), 1.0 / first), second)
    return _cast_like(scaled, gradients)


def scale_each_to_norm(
    gradients: Gradients, norms: Tensor, limits: Tensor, overwritable: Sequence[Variable]
) -> list[Gradient]:
    """Multiply each by `limit / norm` where there is anything to clip at all."""
    del overwritable
    scale = _compiled_if_eager(_scale_each_to_norm, _compiled_scale_each_to_norm)
    return list(scale(list(gradients), norms, limits))


def _scale_each_to_norm(gradients: list[Gradient], norms: Tensor, limits: Tensor) -> list[Gradient]:
    untouched = floating_point.needs_no_clip(norms, limits)
    scaled: list[Gradient] = tf.cond(
        tf.reduce_all(untouched),
        lambda: gradients,
        lambda: _scaled_each(gradients, *floating_point.factors(norms, limits)),
    )
    return scaled


def _scaled_each(gradients: list[Gradient], first: Tensor, second: Tensor) -> list[Gradient]:
    wide = _widened(gradients)
    wide = tf.cond(tf.reduce_any(first < 1.0), lambda: _multiplied_each(wide, first), lambda: wide)
    return _cast_like(_multiplied_each(wide, second), gradients)


def _multiplied_each(gradients: list[Gradient], factors: Tensor) -> list[Gradient]:
    each = zip(gradients, tf.unstack(factors, num=len(gradients)), strict=True)
    return [_multiplied([gradient], factor)[0] for gradient, factor in each]


def _multiplied(gradients: list[Gradient], factor: Tensor) -> list[Gradient]:
    def multiply(values: Tensor) -> Tensor:
        return values * tf.cast(factor, values.dtype)

    return [map_values(gradient, multiply) for gradient in gradients]


def _divided(gradients: list[Gradient], divisor: Tensor) -> list[Gradient]:
    def divide(values: Tensor) -> Tensor:
        return values / tf.cast(divisor, values.dtype)

    return [map_values(gradient, divide) for gradient in gradients]


def _cast_like(gradients: list[Gradient], originals: list[Gradient]) -> list[Gradient]:
    def cast(gradient: Gradient, dtype: tf.DType) -> Gradient:
        return map_values(gradient, lambda values: tf.cast(values, dtype))

    return [cast(gradient, o.dtype) for gradient, o in zip(gradients, originals, strict=True)]


def _widened(gradients: list[Gradient]) -> list[Gradient]:
    return [map_values(gradient, _widen) for gradient in gradients]


def _widen(values: Tensor) -> Tensor:
    return tf.cast(values, tf.float32) if floating_point.is_half(values) else values


def values(gradient: Gradient) -> Tensor:
    """Return the tensor, or the values of slices."""
    return gradient.values if is_sparse(gradient) else gradient


def map_values(gradient: Gradient, function: Callable[[Tensor], Tensor]) -> Gradient:
    """Apply `function` to the tensor, or to the values of slices."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(function(gradient.values), gradient.indices, gradient.dense_shape)
    return function(gradient)


# Outside a graph `tf.cond` would read its predicate on the host, once per step. The same
# function, traced once per list of shapes, leaves the decision on the device.
_compiled_global_norm = tf.function(_global_norm, reduce_retracing=True, autograph=False)
_compiled_norms = tf.function(_norms, reduce_retracing=True, autograph=False)
_compiled_scale_to_norm = tf.function(_scale_to_norm, reduce_retracing=True, autograph=False)
_compiled_scale_each_to_norm = tf.function(
    _scale_each_to_norm, reduce_retracing=True, autograph=False
)


def _compiled_if_eager(
    function: Callable[..., Tensor], compiled: Callable[..., Tensor]
) -> Callable[..., Tensor]:
    return compiled if tf.executing_eagerly() else function


def compiled(function: Callable[..., Any], static: tuple[int, ...]) -> Callable[..., Any]:
    """Trace `function` where it is called outside a graph; Python values are static anyway."""
    del static
    traced = tf.function(function, reduce_retracing=True, autograph=False)

    def run(*arguments: Any) -> Any:
        return _compiled_if_eager(function, traced)(*arguments)

    return run


def choose(predicate: Tensor, quick: Callable[[], Any], general: Callable[[], Any]) -> Any:
    """Decide on the device; to be called in a graph."""
    return tf.cond(predicate, quick, general)


def is_known_to_hold(condition: Tensor) -> bool:
    """No: the scalar stays on the device."""
    del condition
    return False


def all_reduce(
    original: Callable[[list[tuple[Gradient, Variable]]], list[tuple[Gradient, Variable]]],
    gradients: Gradients,
    variables: Sequence[Variable],
) -> list[Gradient]:
    """Sum `gradients` over replicas with Keras's own method of the wrapped optimizer.

    Keras pre-divides the loss by the number of replicas: the sum is the whole batch's mean.
    """
    if not tf.distribute.has_strategy():
        # With one replica it takes as long as some updates, and what comes out of it TensorFlow
        # does not write over.
        return list(gradients)
    native = [getattr(variable, "value", variable) for variable in variables]
    reduced = original(list(zip(gradients, native, strict=True)))
    return [gradient for gradient, _ in reduced]


def replicas() -> int:
    """Return the number of replicas of the strategy whose scope this is."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def on_every_replica(flag: Tensor) -> Tensor:
    """Whether `flag` is true on every replica; to be called on each of them."""
    missing = tf.cast(tf.logical_not(flag), tf.float32)
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, missing) == 0.0


def decides_across_replicas() -> bool:
    """Whether updates are a `merge_call`, as under MirroredStrategy."""
    return not tf.__internal__.distribute.strategy_supports_no_merge_call()


def on_every_device(rank: int) -> dict[str, Any]:
    """Return nothing: layouts are JAX's."""
    del rank
    return {}


def scope_of(variable: Variable) -> AbstractContextManager[object]:
    """Scope of the strategy that `variable` was created under."""
    strategy = getattr(variable.value, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def asynchronous_strategy() -> str | None:
    """Name of the current strategy if its workers do not wait for each other."""
    strategy = tf.distribute.get_strategy()
    # The class under tf.distribute.experimental is its base.
    asynchronous = tf.distribute.experimental.ParameterServerStrategy
    return type(strategy).__name__ if isinstance(strategy, asynchronous) else None


def run_unless(
    condition: Tensor,
    body: Callable[..., None],
    otherwise: Callable[..., None],
    arguments: tuple[Any, ...],
    variables: Sequence[Variable],
) -> None:
    """Run `body(*arguments)` or, where `condition` is true, `otherwise(*arguments)`."""
    del variables
    if not decides_across_replicas():
        _cond(condition, lambda: body(*arguments), lambda: otherwise(*arguments))
        return

    # In a replica's context a branch of `cond` may not come to a `merge_call`, which updates
    # under MirroredStrategy are. The way of Keras's LossScaleOptimizer: decide across replicas,
    # with the first one's condition, as all come from the same reduced gradients.
    def decide(strategy: Any, conditions: Any, *per_replica: Any) -> None:
        _cond(
            strategy.experimental_local_results(conditions)[0],
            lambda: strategy.extended.call_for_each_replica(body, args=per_replica),
            lambda: strategy.extended.call_for_each_replica(otherwise, args=per_replica),
        )

    tf.distribute.get_replica_context().merge_call(decide, args=(condition, *arguments))


def _cond(condition: Tensor, body: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
    def returning_nothing(function: Callable[[], Any]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            function()
            return tf.constant(0)

        return run

    tf.cond(condition, returning_nothing(otherwise), returning_nothing(body))


def raise_where(
    fatal: Tensor,
    error: Callable[[Sequence[str]], Exception],
    names: Sequence[str],
    flags: Tensor,
    may_wait: bool,
) -> bool:
    """Raise at once, or where a graph comes by here; XLA drops what would raise."""
    if tf.executing_eagerly():
        host_errors.raise_where(fatal, error, names, flags)
        return True
    if may_wait or _is_compiled_by_xla():
        return False
    concerned = tf.boolean_mask(tf.constant(list(names)), tf.cast(flags, tf.bool))
    tf.debugging.Assert(
        tf.logical_not(fatal), [str(error(())), concerned], summarize=_NAMES_IN_A_MESSAGE
    )
    return True


def _is_compiled_by_xla() -> bool:
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        if context is not None and context.IsXLAContext():
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _as_one_node(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` as one node of whatever graph calls it, for branches hardly ever taken.

    TensorFlow passes through all nodes of a branch that is not taken, a thousand or two of them
    for some hundred gradients, in as much time as it takes to clip a dozen.
    """
    if _is_compiled_by_xla():
        return function
    is_one_node = {"_noinline": True}
    node: Callable[..., Any] = tf.function(
        function, autograph=False, experimental_attributes=is_one_node
    )
    return node


def _has_accelerator() -> bool:
    return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())


def clamp(variables: Sequence[Variable], bounds: Sequence[Tensor]) -> None:
    """Assign as Keras's own updates do: of all replicas together, each replica its copy."""
    # A `tf.Variable` has a `value`, too: a method.
    native = [v if isinstance(v, tf.Variable) else v.value for v in variables]
    tf.__internal__.distribute.interim.maybe_merge_call(
        _clamp_on_each_replica, tf.distribute.get_strategy(), native, list(bounds)
    )


def _clamp_on_each_replica(
    strategy: tf.distribute.Strategy, variables: list[Any], bounds: list[Tensor]
) -> None:
    def assign(variable: Any, bound: Tensor) -> None:
        variable.assign(floating_point.clamped(tf.convert_to_tensor(variable), bound))

    for variable, bound in zip(variables, bounds, strict=True):
        strategy.extended.update(variable, assign, args=(bound,), group=False)


def write_row(variable: Variable, index: Tensor, row: Tensor) -> None:
    """Scatter into the variable, or each replica into its copy: see `clamp`."""
    if not tf.distribute.has_strategy():
        _scatter_row(variable.value, index, row)
        return

    def write_on_each_replica(strategy: Any, native: Any, index: Tensor, row: Tensor) -> None:
        strategy.extended.update(native, _scatter_row, args=(index, row), group=False)

    tf.__internal__.distribute.interim.maybe_merge_call(
        write_on_each_replica, tf.distribute.get_strategy(), variable.value, index, row
    )


def _scatter_row(variable: Any, index: Tensor, row: Tensor) -> None:
    variable.scatter_nd_update(tf.reshape(index, [1, 1]), row[tf.newaxis])


def where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Choose entry by entry between tensors of one dtype."""
    return tf.where(condition, one, other)


def stack(scalars: Sequence[Tensor]) -> Tensor:
    """Return them as one vector."""
    return tf.stack(list(scalars))


def count_up(variable: Variable) -> None:
    """Assign as Keras does, where there are replicas."""
    if tf.distribute.has_strategy():
        variable.assign(variable.value + 1)
    else:
        variable.value.assign_add(1)
