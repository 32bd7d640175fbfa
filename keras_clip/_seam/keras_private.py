"""Every private Keras name that keras_clip uses, why, and the check that it is there.

Read in Keras 3.8, 3.10, 3.12 and 3.15, tested on 3.8.0 and 3.15.1. Keras has no public place
between the accumulation of gradients and their use, so that these names cannot be avoided.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_clip.types import Gradient, Gradients, Optimizer, Tensor, Variable

OLDEST_KERAS = "3.8"
NEWEST_KERAS = "3.15"

PRIVATE_NAMES: dict[str, str] = {
    "_backend_update_step": "the clip goes right before it: gradients are filtered, unscaled "
    "and accumulated by then, moments and weights not yet touched",
    "_iterations": "counts micro-batches, which the public `iterations` does not",
    "_trainable_variables": "the wrapper shows the wrapped optimizer's; SwapEMAWeights reads it",
    "_trainable_variables_indices": "`Optimizer.apply` and `stateless_apply` look variables up "
    "in it",
    "_get_variable_index": "finds the Keras variable of a native one",
    "_backend_apply_gradients": "every `apply` of Keras comes through here, micro-batches too: "
    "one that does not would never be clipped",
    "_variables": "the wrapper's own variables, apart from the wrapped optimizer's",
    "_track_variable": "adds a clipper's state to what the optimizer saves",
}

# Shown on the wrapper where the wrapped optimizer has them; nothing breaks where it has not.
PRIVATE_SHOWN_NAMES: dict[str, str] = {
    "_accumulated_gradients": "of the members of a MultiOptimizer that accumulate, whose "
    "averages are needed before they compute them; shown for those who look for it",
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
    "_get_control_flow_context": "tells whether XLA compiles a graph, where no error can be raised",
}

PRIVATE_MULTI_OPTIMIZER_NAMES: dict[str, str] = {
    "_var_to_optimizer_idx": "which member updates a variable",
    "_var_key": "the key of a variable in that mapping",
}

PRIVATE_ACCUMULATION_NAMES: dict[str, str] = {
    "_backend_reset_gradient_accumulators": "Keras's own leaves a NaN on torch",
    "_backend_increment_gradient_accumulators": "accumulation under strategies where Keras's "
    "own raises",
    "_apply_weight_decay": "comes before the update, also there",
    "_update_model_variables_moving_average": "comes after it, also there",
}

# Where keras_clip notes on an optimizer who wraps it.
_OWNER = "_keras_clip_owner"


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
    """Raise if an optimizer lacks a name that skipping an accumulated update needs."""
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


def is_update_step(optimizer: Optimizer) -> Tensor | None:
    """Whether the next `apply` updates the weights; None if each does.

    The same expression as in Keras's `_backend_apply_gradients`.
    """
    steps = optimizer.gradient_accumulation_steps
    return (optimizer._iterations + 1) % steps == 0 if steps else None


def counts_on_arrival(optimizer: Optimizer) -> bool:
    """Whether `_backend_apply_gradients` moves the counter, as in Keras 3.8; today `apply` does."""
    return "assign_add" in type(optimizer)._backend_apply_gradients.__code__.co_names


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


def owner_of(optimizer: Optimizer) -> str | None:
    """Name of the wrapper that has claimed `optimizer`."""
    name: str | None = optimizer.__dict__.get(_OWNER)
    return name


def claim(optimizer: Optimizer, owner: str) -> None:
    """Note who wraps `optimizer`, past the tracking of its `__setattr__`."""
    optimizer.__dict__[_OWNER] = owner


def replace_methods(optimizer: Optimizer, **methods: Any) -> None:
    """Replace methods on the one instance; a method that its class lacks stays away.

    Its class, its config and the other optimizers of that class stay as they are.
    """
    present = {name: method for name, method in methods.items() if hasattr(optimizer, name)}
    optimizer.__dict__.update(present)


def already_reduced(gradients_and_variables: Any) -> Any:
    """Stand in for the all-reduce where it has happened."""
    return gradients_and_variables


def trainable_variables(optimizer: Optimizer) -> list[Variable]:
    """Return the variables a built optimizer updates."""
    return list(optimizer._trainable_variables)


def all_variables(optimizer: Optimizer) -> list[Variable]:
    """Return what an `apply` of a built optimizer may change, each variable once."""
    variables = [*optimizer._trainable_variables, *optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def never_came(optimizer: Optimizer) -> str:
    """What to say of an optimizer whose `apply` never comes to Keras's update."""
    return (
        f"{type(optimizer).__name__} updated its variables without the "
        "`_backend_update_step` of keras.optimizers.Optimizer, so nothing was clipped. "
        "keras_clip wraps optimizers that implement `update_step` and leave `apply` to "
        "Keras; for this one, clip the gradients that you pass to it with "
        "keras_clip.clip_by_global_norm."
    )


def track(wrapper: Optimizer, variable: Variable) -> None:
    """Make a variable one of the wrapper's own."""
    wrapper._track_variable(variable)


def own_variables(wrapper: Optimizer) -> list[Variable]:
    """Return the wrapper's own variables, without the wrapped optimizer's."""
    return list(wrapper._variables)


def accumulated_average(optimizer: Optimizer, gradient: Gradient, variable: Variable) -> Gradient:
    """What `optimizer` will hand to its update: unscaled and averaged, as Keras writes it."""
    if optimizer.loss_scale_factor is not None:
        gradient = gradient / optimizer.loss_scale_factor
    if not optimizer.gradient_accumulation_steps:
        return gradient
    return averages(optimizer, [gradient], [variable])[0]


def accumulators(optimizer: Optimizer, variables: list[Variable]) -> list[Variable]:
    """Return the sums of earlier micro-batches, of an optimizer that accumulates."""
    sums = optimizer._accumulated_gradients
    return [sums[optimizer._get_variable_index(variable)] for variable in variables]


def reset_accumulators(optimizer: Optimizer) -> None:
    """Make the sums 0. Keras on torch multiplies them by 0, which leaves a NaN what it is."""
    for accumulated in optimizer._accumulated_gradients:
        if accumulated is not None:
            accumulated.assign(ops.zeros_like(accumulated.value))


def averages(
    optimizer: Optimizer, gradients: Gradients, variables: list[Variable]
) -> list[Gradient]:
    """Return the averages over all micro-batches, of which `gradients` are the latest."""
    steps = optimizer.gradient_accumulation_steps
    sums = accumulators(optimizer, variables)
    return [
        (gradient + accumulated) / steps
        for gradient, accumulated in zip(gradients, sums, strict=True)
    ]
