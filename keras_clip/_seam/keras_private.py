"""Every private Keras name that keras_clip uses, why, and the check that it is there.

Read in Keras 3.8, 3.10, 3.12 and 3.15, tested on 3.8.0 and 3.15.1. Keras has no public place
between the accumulation of gradients and their use, so that these names cannot be avoided.
"""

from collections.abc import Iterable, Sequence

import keras
from keras import ops

from keras_clip.types import Gradient, Gradients, Optimizer, Tensor, Variable

OLDEST_KERAS = "3.8"
NEWEST_KERAS = "3.15"

PRIVATE_NAMES: dict[str, str] = {
    "_backend_update_step": "weights are bounded right after it, before Keras averages them",
    "_iterations": "counts micro-batches, which the public `iterations` does not",
    "_trainable_variables": "the wrapper shows the wrapped optimizer's; SwapEMAWeights reads it",
    "_trainable_variables_indices": "`Optimizer.apply` and `stateless_apply` look variables up "
    "in it",
    "_get_variable_index": "finds the Keras variable of a native one",
    "_check_variables_are_known": "raises Keras's own error for another model's variables",
    "_filter_empty_gradients": "leaves out None and warns as the wrapped optimizer would",
    "_variables": "the wrapper's own variables, apart from the wrapped optimizer's",
    "_track_variable": "adds a clipper's state to what the optimizer saves",
}

# Shown on the wrapper where the wrapped optimizer has them; nothing breaks where it has not.
PRIVATE_SHOWN_NAMES: dict[str, str] = {
    "_learning_rate": "`Optimizer.__init__` writes it; the wrapped optimizer has the true one",
    "_model_variables_moving_average": "SwapEMAWeights looks for it on the optimizer that "
    "LossScaleOptimizer wraps",
}

PRIVATE_TENSORFLOW_NAMES: dict[str, str] = {
    "_all_reduce_sum_gradients": "Keras's first act inside `_backend_update_step`; it has to "
    "come before the clip, and only once",
}


# Of variables on torch. Without it gradients are clipped as well, but not in place.
PRIVATE_TORCH_NAMES: dict[str, str] = {
    "_value": "the tensor that torch keeps the gradient at; the public `value` takes longer to "
    "look for scopes than a small gradient takes to clip",
}

# Of TensorFlow's own graphs.
PRIVATE_GRAPH_NAMES: dict[str, str] = {
    "_omit_frequent_tracing_warning": "keeps TensorFlow from warning that every model is traced",
    "_get_control_flow_context": "tells whether XLA compiles a graph, where no error can be raised",
}

PRIVATE_MULTI_OPTIMIZER_NAMES: dict[str, str] = {
    "_var_to_optimizer_idx": "which member updates a variable",
    "_var_key": "the key of a variable in that mapping",
}

# Of LossScaleOptimizer, which keras_clip extends: see `loss_scale.py`.
PRIVATE_LOSS_SCALE_NAMES: dict[str, str] = {
    "_stateful_handle_non_finite_grads": "comes where an overflow is left out",
    "_stateless_handle_non_finite_grads": "comes where an overflow is left out, on JAX",
}

PRIVATE_ACCUMULATION_NAMES: dict[str, str] = {
    "_accumulated_gradients": "sums of earlier micro-batches, whose average is clipped",
    "_backend_increment_gradient_accumulators": "adds a micro-batch, also where Keras's own "
    "`apply` would raise: under strategies that update by `merge_call`",
    "_apply_weight_decay": "comes with updates only, not with micro-batches",
}


def check_names(optimizer: Optimizer) -> None:
    """Raise if this Keras lacks a name: clipping would silently not happen."""
    names = dict(PRIVATE_NAMES)
    if keras.config.backend() == "tensorflow":
        names |= PRIVATE_TENSORFLOW_NAMES
    _require(names, optimizer)


def check_multi_optimizer_names(optimizer: Optimizer) -> None:
    """Raise if a built MultiOptimizer lacks a name that its clip needs."""
    _require(PRIVATE_MULTI_OPTIMIZER_NAMES, optimizer)


def check_accumulation_names(optimizer: Optimizer) -> None:
    """Raise if an optimizer that accumulates lacks a name that averaging needs."""
    _require(PRIVATE_ACCUMULATION_NAMES, optimizer)


def _require(names: Iterable[str], optimizer: Optimizer) -> None:
    missing = [name for name in names if not hasattr(optimizer, name)]
    if missing:
        raise ImportError(
            f"keras {keras.__version__} has no {', '.join(missing)} on its optimizers "
            f"({type(optimizer).__name__} was given), and without that keras_clip cannot clip. "
            f"It is tested with Keras {OLDEST_KERAS} to {NEWEST_KERAS}: "
            f"pip install 'keras>={OLDEST_KERAS},<={NEWEST_KERAS}.99', or a newer keras-clip."
        )


def is_overwritten_by_gradient(variable: Variable) -> bool:
    """Whether Keras assigns the gradient to the variable, as for the scales of float8."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def keras_variables(optimizer: Optimizer, variables: list[Variable]) -> list[Variable]:
    """Return the variables the optimizer was built with, for native ones of the backend."""
    known = optimizer._trainable_variables
    return [known[optimizer._get_variable_index(variable)] for variable in variables]


def tensor_of(variable: Variable) -> Tensor | None:
    """Return the tensor that a variable on torch consists of, whatever scope this is."""
    return getattr(variable, "_value", None)


def grad_of(variable: Variable) -> Tensor | None:
    """Return what torch keeps as a variable's `.grad`."""
    tensor: Tensor = tensor_of(variable)
    # torch warns of anybody who asks for the `.grad` of what is no leaf.
    return tensor.grad if getattr(tensor, "is_leaf", False) else None


def trainable_variables(optimizer: Optimizer) -> list[Variable]:
    """Return the variables a built optimizer updates."""
    return list(optimizer._trainable_variables)


def trained_variables(optimizer: Optimizer) -> list[Variable]:
    """Return the variables that the update rule changes: not those Keras overwrites."""
    variables = optimizer._trainable_variables
    return [v for v in variables if not is_overwritten_by_gradient(v)]


def all_variables(optimizer: Optimizer) -> list[Variable]:
    """Return what an `apply` of a built optimizer may change, each variable once."""
    variables = [*optimizer._trainable_variables, *optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def track(wrapper: Optimizer, variable: Variable) -> None:
    """Make a variable one of the wrapper's own."""
    wrapper._track_variable(variable)


def own_variables(wrapper: Optimizer) -> list[Variable]:
    """Return the list of the wrapper's own variables, without the wrapped optimizer's."""
    return wrapper._variables  # type: ignore[no-any-return]


def accumulator(optimizer: Optimizer, variable: Variable) -> Variable:
    """Return the sum of earlier micro-batches, of an optimizer that accumulates."""
    return optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]


def reset_accumulators(optimizer: Optimizer) -> None:
    """Make the sums 0. Keras on torch multiplies them by 0, which leaves a NaN what it is."""
    for accumulated in optimizer._accumulated_gradients:
        if accumulated is not None:
            accumulated.assign(ops.zeros_like(accumulated.value))


def present_pairs(
    optimizer: Optimizer, gradients: Gradients, variables: Sequence[Variable]
) -> list[tuple[Gradient, Variable]]:
    """Return the gradients that are not None with their variables; warn of the rest, as Keras."""
    optimizer._check_variables_are_known(variables)
    return list(zip(*optimizer._filter_empty_gradients(gradients, variables), strict=True))


def member_of(optimizer: Optimizer, variable: Variable) -> Optimizer:
    """Return the member of a MultiOptimizer that updates a variable; of others, themselves."""
    if not hasattr(optimizer, "_var_to_optimizer_idx"):
        return optimizer
    return optimizer.optimizers[optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]]
