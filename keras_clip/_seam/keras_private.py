"""Every private Keras name that keras_clip uses, with its reason and a check.

Read in Keras 3.8, 3.10, 3.12 and 3.15, tested on 3.8.0 and 3.15.1. Keras has no public hook
between the accumulation of gradients and their use, so these names are needed.
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
    "_trainable_variables_indices": "`Optimizer.apply` and `stateless_apply` find variables by it",
    "_get_variable_index": "finds the Keras variable of a native one",
    "_check_variables_are_known": "raises Keras's own error for another model's variables",
    "_filter_empty_gradients": "leaves out None and warns as the wrapped optimizer would",
    "_variables": "the wrapper's own variables, without the wrapped optimizer's",
    "_track_variable": "adds a clipper's state to the optimizer's saved variables",
}

# Attributes of the wrapped optimizer that the wrapper shows. They may be missing.
PRIVATE_SHOWN_NAMES: dict[str, str] = {
    "_learning_rate": "`Optimizer.__init__` writes it; the wrapped optimizer has the true one",
    "_model_variables_moving_average": "SwapEMAWeights looks for it on the optimizer that "
    "LossScaleOptimizer wraps",
}

PRIVATE_TENSORFLOW_NAMES: dict[str, str] = {
    "_all_reduce_sum_gradients": "Keras's first act inside `_backend_update_step`; it has to "
    "come before the clip, and only once",
}


# On variables of torch. Without it, gradients are clipped, but not in place.
PRIVATE_TORCH_NAMES: dict[str, str] = {
    "_value": "the tensor whose `.grad` torch sets; the public `value` looks for scopes, which "
    "takes longer than the clip of a small gradient",
}

# On graphs of TensorFlow itself.
PRIVATE_GRAPH_NAMES: dict[str, str] = {
    "_omit_frequent_tracing_warning": "turns off TensorFlow's warning of one trace for each model",
    "_get_control_flow_context": "tells whether XLA compiles a graph, where no error can be raised",
}

PRIVATE_MULTI_OPTIMIZER_NAMES: dict[str, str] = {
    "_var_to_optimizer_idx": "which member updates a variable",
    "_var_key": "the key of a variable in that mapping",
}

# On LossScaleOptimizer, which keras_clip extends: see `loss_scale.py`.
PRIVATE_LOSS_SCALE_NAMES: dict[str, str] = {
    "_stateful_handle_non_finite_grads": "Keras calls it when it skips an overflow",
    "_stateless_handle_non_finite_grads": "Keras calls it when it skips an overflow, on JAX",
}

PRIVATE_ACCUMULATION_NAMES: dict[str, str] = {
    "_accumulated_gradients": "sums of earlier micro-batches, whose average is clipped",
    "_backend_increment_gradient_accumulators": "adds a micro-batch, also where Keras's own "
    "`apply` would raise: under strategies that update by `merge_call`",
    "_apply_weight_decay": "must run with updates only, not with micro-batches",
}


def check_names(optimizer: Optimizer) -> None:
    """Raise if this Keras lacks a name: without it, gradients would silently not be clipped."""
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
            f"({type(optimizer).__name__} was given). keras_clip cannot clip without these names. "
            f"It is tested with Keras {OLDEST_KERAS} to {NEWEST_KERAS}: "
            f"pip install 'keras>={OLDEST_KERAS},<={NEWEST_KERAS}.99', or a newer keras-clip."
        )


def is_overwritten_by_gradient(variable: Variable) -> bool:
    """Whether Keras assigns the gradient to the variable, as for the scales of float8."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def keras_variables(optimizer: Optimizer, variables: list[Variable]) -> list[Variable]:
    """Return the Keras variables of an optimizer, also for native variables of the backend."""
    known = optimizer._trainable_variables
    return [known[optimizer._get_variable_index(variable)] for variable in variables]


def tensor_of(variable: Variable) -> Tensor | None:
    """Return the tensor of a variable on torch, in any scope."""
    return getattr(variable, "_value", None)


def grad_of(variable: Variable) -> Tensor | None:
    """Return the `.grad` of a variable on torch."""
    tensor: Tensor = tensor_of(variable)
    # Reading `.grad` of a non-leaf tensor warns.
    return tensor.grad if getattr(tensor, "is_leaf", False) else None


def trainable_variables(optimizer: Optimizer) -> list[Variable]:
    """Return the variables a built optimizer updates."""
    return list(optimizer._trainable_variables)


def trained_variables(optimizer: Optimizer) -> list[Variable]:
    """Return the variables that the update rule changes, without the overwritten ones."""
    variables = optimizer._trainable_variables
    return [v for v in variables if not is_overwritten_by_gradient(v)]


def all_variables(optimizer: Optimizer) -> list[Variable]:
    """Return all variables that `apply` of a built optimizer may change, each once."""
    variables = [*optimizer._trainable_variables, *optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def track(wrapper: Optimizer, variable: Variable) -> None:
    """Add a variable to the wrapper's own."""
    wrapper._track_variable(variable)


def own_variables(wrapper: Optimizer) -> list[Variable]:
    """Return the list of the wrapper's own variables, without the wrapped optimizer's."""
    return wrapper._variables  # type: ignore[no-any-return]


def accumulator(optimizer: Optimizer, variable: Variable) -> Variable:
    """Return the variable that sums the micro-batches of a variable's gradient."""
    return optimizer._accumulated_gradients[optimizer._get_variable_index(variable)]


def reset_accumulators(optimizer: Optimizer) -> None:
    """Set the sums to 0. Keras on torch multiplies them by 0, and a NaN would stay."""
    for accumulated in optimizer._accumulated_gradients:
        if accumulated is not None:
            accumulated.assign(ops.zeros_like(accumulated.value))


def present_pairs(
    optimizer: Optimizer, gradients: Gradients, variables: Sequence[Variable]
) -> list[tuple[Gradient, Variable]]:
    """Return the gradients that are not None, with their variables; warn as Keras does."""
    optimizer._check_variables_are_known(variables)
    return list(zip(*optimizer._filter_empty_gradients(gradients, variables), strict=True))


def member_of(optimizer: Optimizer, variable: Variable) -> Optimizer:
    """Return the member of a MultiOptimizer that updates a variable, or the optimizer itself."""
    if not hasattr(optimizer, "_var_to_optimizer_idx"):
        return optimizer
    return optimizer.optimizers[optimizer._var_to_optimizer_idx[optimizer._var_key(variable)]]


def batch_counter(optimizer: Optimizer) -> Variable:
    """Return the counter of all batches; `iterations` leaves out those of an accumulation."""
    counter: Variable = optimizer._iterations
    return counter
