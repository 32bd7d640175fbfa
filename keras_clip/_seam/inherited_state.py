"""State of the wrapped optimizer that the wrapper shows as its own."""

from collections.abc import Sequence
from typing import Any

from keras_clip.types import Optimizer, Tensor, Variable


def inner_of(wrapper: Any) -> Optimizer:
    """Return the wrapped optimizer; raise AttributeError before it is set."""
    inner = vars(wrapper).get("inner_optimizer")
    if inner is None:
        raise AttributeError("the wrapped optimizer is not set yet")
    return inner


class Inherited:
    """An attribute that is read from the wrapped optimizer and written to it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else getattr(inner_of(wrapper), self._name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        # `Optimizer.__init__` writes defaults before the wrapped optimizer is set.
        if "inner_optimizer" in vars(wrapper):
            setattr(inner_of(wrapper), self._name, value)


class RefusedClip(Inherited):
    """An argument of Keras's own clips, which cannot be combined with a wrapper."""

    def __set__(self, wrapper: Any, value: Any) -> None:
        if value is not None:
            raise ValueError(
                f"{self._name}={value!r} would have Keras clip as well, before the all-reduce "
                "over replicas. Set max_norm of the ClippedOptimizer instead."
            )


class InheritedState:
    """The attributes of `keras.optimizers.Optimizer`, taken from the wrapped optimizer.

    Private ones are included because Keras's `apply_gradients`, `stateless_apply` and
    `SwapEMAWeights` read them from the optimizer of the model.
    """

    weight_decay = Inherited()
    use_ema = Inherited()
    ema_momentum = Inherited()
    ema_overwrite_frequency = Inherited()
    loss_scale_factor = Inherited()
    gradient_accumulation_steps = Inherited()

    clipnorm = RefusedClip()
    clipvalue = RefusedClip()
    global_clipnorm = RefusedClip()

    # The wrapper holds these itself, like every optimizer.
    name: str
    built: bool

    _iterations = Inherited()
    _learning_rate = Inherited()
    _trainable_variables = Inherited()
    _trainable_variables_indices = Inherited()
    _model_variables_moving_average = Inherited()
    _accumulated_gradients = Inherited()

    def _track_variable(self, variable: Variable) -> None:
        # `Optimizer.__init__` makes a counter before the wrapped optimizer is set. The wrapper
        # does not track it: the wrapped optimizer's counter replaces it.
        if "inner_optimizer" in vars(self):
            super()._track_variable(variable)  # type: ignore[misc]

    @property
    def iterations(self) -> Any:
        """The wrapped optimizer's number of updates."""
        return inner_of(self).iterations

    @property
    def learning_rate(self) -> Any:
        """The wrapped optimizer's learning rate."""
        return inner_of(self).learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        inner_of(self).learning_rate = value

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scale the loss as the wrapped optimizer does."""
        return inner_of(self).scale_loss(loss)

    def exclude_from_weight_decay(self, *args: Any, **kwargs: Any) -> None:
        """Exclude variables from the wrapped optimizer's weight decay."""
        inner_of(self).exclude_from_weight_decay(*args, **kwargs)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Overwrite variables as the wrapped optimizer does at the end of training."""
        inner_of(self).finalize_variable_values(var_list)

    def __getattr__(self, name: str) -> Any:
        """Return other attributes, such as `beta_1`, of the wrapped optimizer."""
        if isinstance(getattr(type(self), name, None), property):
            # Python calls this when a property raises AttributeError; show the message of the
            # property.
            return getattr(type(self), name).fget(self)
        # Private attributes of frameworks are not shared.
        if name.startswith("_") or "inner_optimizer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(inner_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the wrapped optimizer on it, so that it takes effect."""
        if isinstance(getattr(type(self), name, None), Inherited):
            # Keras would otherwise track and save it here too.
            object.__setattr__(self, name, value)
        elif self._belongs_to_inner(name):
            setattr(inner_of(self), name, value)
        else:
            super().__setattr__(name, value)

    def _belongs_to_inner(self, name: str) -> bool:
        inner = vars(self).get("inner_optimizer")
        if inner is None or name.startswith("_"):
            return False
        return name not in vars(self) and not hasattr(type(self), name) and hasattr(inner, name)

    def save_own_variables(self, store: Any) -> None:
        """Store the wrapped optimizer's variables in the format of a bare optimizer's file.

        Keras stores the wrapper's own state separately: see `keras_clip.saving`.
        """
        inner_of(self).save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the wrapped optimizer's variables, also from the file of a bare optimizer."""
        inner_of(self).load_own_variables(store)

    def __dir__(self) -> list[str]:
        """List the wrapped optimizer's attributes, but not `inner_optimizer`.

        Keras saves every object that `dir` lists, and the wrapper already saves it.
        """
        inner = [name for name in dir(vars(self).get("inner_optimizer")) if name[0] != "_"]
        return sorted({*super().__dir__(), *inner} - {"inner_optimizer"})
