"""State that a wrapper shows as its own and the wrapped optimizer holds."""

from typing import Any

from keras_clip.types import Optimizer, Variable


def inner_of(wrapper: Any) -> Optimizer:
    """Return the wrapped optimizer; raise AttributeError while there is none yet."""
    inner = vars(wrapper).get("inner_optimizer")
    if inner is None:
        raise AttributeError("the wrapped optimizer is not set yet")
    return inner


class Inherited:
    """An attribute read from, and written to, the wrapped optimizer."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else getattr(inner_of(wrapper), self._name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        # `Optimizer.__init__` writes its defaults before there is a wrapped optimizer.
        if "inner_optimizer" in vars(wrapper):
            setattr(inner_of(wrapper), self._name, value)


class RefusedClip(Inherited):
    """One of Keras's own clips, which may not be set beside ours."""

    def __set__(self, wrapper: Any, value: Any) -> None:
        if value is not None:
            raise ValueError(
                f"{self._name}={value!r} would have Keras clip as well, before the all-reduce "
                "over replicas. Set max_norm of the ClippedOptimizer instead."
            )


class InheritedState:
    """What `keras.optimizers.Optimizer` keeps in attributes, taken from the wrapped one.

    The private ones are there because Keras's own `apply_gradients`, `stateless_apply` and
    `SwapEMAWeights` read them from the optimizer that the model was compiled with.
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

    # Kept by the wrapper itself, as every optimizer does.
    name: str
    built: bool

    _iterations = Inherited()
    _learning_rate = Inherited()
    _trainable_variables = Inherited()
    _trainable_variables_indices = Inherited()
    _model_variables_moving_average = Inherited()
    _accumulated_gradients = Inherited()

    def __setattr__(self, name: str, value: Any) -> None:
        """Pass inherited attributes on; Keras would otherwise track and save them here too."""
        if isinstance(getattr(type(self), name, None), Inherited):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _track_variable(self, variable: Variable) -> None:
        # The counter that `Optimizer.__init__` makes is the one variable before there is a
        # wrapped optimizer, whose counter it stands for.
        if "inner_optimizer" in vars(self):
            super()._track_variable(variable)  # type: ignore[misc]
