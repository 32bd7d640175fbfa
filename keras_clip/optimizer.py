"""The optimizer that wraps another and clips its gradients."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_clip._seam import backend, keras_private
from keras_clip._seam.inherited_state import InheritedState, inner_of
from keras_clip._seam.inner_optimizer import InnerOptimizer
from keras_clip._seam.loss_scale import tell_of_overflows
from keras_clip._seam.strategies import check_strategy
from keras_clip.applying import Applying
from keras_clip.clippers import ClipByGlobalNorm, Clipper
from keras_clip.clippers.registry import deserialize, get_member
from keras_clip.records.history import History, Record
from keras_clip.records.variable_norms import VariableNorms
from keras_clip.saving import SavedState
from keras_clip.skipping.decision import Skipping
from keras_clip.skipping.nonfinite import NonFinitePolicy
from keras_clip.thresholds import Threshold, held_thresholds, threshold_from_config
from keras_clip.types import Gradients, Optimizer, Tensor, ThresholdValue, Variable
from keras_clip.weights.weight_groups import WeightGroups, max_weight_from_config
from keras_clip.wrappable import check_wrappable, get_optimizer


@keras.saving.register_keras_serializable(package="keras_clip")
class ClippedOptimizer(InheritedState, keras.optimizers.Optimizer):  # type: ignore[misc]
    """Clip gradients right before the wrapped optimizer uses them.

    `inner_optimizer.update(clip(gradients))`, where the gradients are the whole batch's:
    unscaled, accumulated and summed over replicas. With the default clipper
    `clip(g)_i = g_i * min(1, max_norm / global_norm(g))`.

    Whatever works with the wrapped optimizer works with this one: its learning rate,
    iterations, weight decay, moving averages, callbacks and attributes are the wrapped
    optimizer's. Clipping acts on the gradients of the loss, before moments; decoupled weight
    decay is untouched.

    Args:
        inner_optimizer: a `keras.optimizers.Optimizer`, its name or its config, as
            `keras.optimizers.get` takes it. `MultiOptimizer` is clipped by the norm over all
            its members.
        max_norm: short for `clipper=ClipByGlobalNorm(max_norm)`: a number of at least 0, a
            `LearningRateSchedule` or a callable of the step. Defaults to 1.0. `float("inf")`
            observes: `grad_norm` is reported and gradients pass untouched.
        clipper: instead of `max_norm`: a `Clipper`, its name (`"auto_clip"`), its config, or a
            list of these, which are applied one after another. See `keras_clip.clippers.get`.
        nonfinite: what to do about an update whose global norm is NaN or infinite, decided on the
            whole batch's gradients, so that all replicas agree. `"propagate"`: nothing, the step
            shows the NaN, as in TensorFlow. `"skip"`: it is not applied at all; weights,
            moments, iterations and the clipper's state stay bit for bit, and `skipped_steps`
            counts it. `"zero"`: NaN and infinite entries become 0, then the gradients are
            clipped, and `zeroed_steps` counts it. `"raise"`: it is not applied, and an error
            names the variables; see `raise_if_nonfinite` for compiled steps. Defaults to
            `"propagate"`.
        max_consecutive_skips: int of at least 1: when more updates than this are skipped in a
            row, an error stops the training, as with `"raise"`. Defaults to None, no limit.
        skip_above: number of at least 1, a `LearningRateSchedule` or a callable of the step: an
            update whose norm exceeds this multiple of the clipper's threshold, as that stands
            before the update, is not applied at all. Weights, moments, iterations and the
            clipper's state stay as they were, and `skipped_steps` counts it. So is an update
            whose norm is NaN. Defaults to None: every update is applied. For clippers with one
            threshold for one norm, such as `ClipByGlobalNorm`, `AutoClip` and `ZClip`.
        history_size: int, number of latest updates whose norms and thresholds are kept on the
            device for `history` and `keras_clip.ClipMonitor`, 16 bytes each. Defaults to 10000,
            an epoch of ordinary size. 0 keeps none.
        max_weight: bound that all trained variables are projected to after each update: a
            number, a schedule, a callable of the step or a `WeightClipping`; or a dict of path
            patterns (`re.fullmatch`, a path itself goes first) to these or None, where the key
            "default" is for all variables that no pattern matches; without it they have no
            bound. Defaults to None, no bounds.
        name: str, defaults to "clipped_optimizer".

    Raises:
        TypeError: `max_norm` or `clipper` is of another type.
        ValueError: both `max_norm` and `clipper` are given, `max_norm` is negative or NaN,
            `nonfinite` is another word, `max_consecutive_skips` is below 1 or nothing is ever
            skipped, `skip_above` is below 1 or the clipper has nothing to compare it with, or
            `inner_optimizer` clips by itself, scales the loss, or is wrapped already.
        NonFiniteGradientError: at a step, with `nonfinite="raise"`.
        TooManySkipsError: at a step, with `max_consecutive_skips`. In a `tf.function` both are a
            `tf.errors.InvalidArgumentError` with the same text.
        ImportError: this Keras lacks what keras_clip builds on.

    Reference:
        Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063. Keras's own `global_clipnorm` clips
        each replica's gradients before the all-reduce; this class clips after it.

    Example:
        >>> import keras, numpy as np
        >>> from keras_clip import ClippedOptimizer
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=ClippedOptimizer("adam", max_norm=1.0), loss="mse")
        >>> history = model.fit(np.ones((8, 4)), np.full((8, 1), 100.0), verbose=0)
        >>> float(model.optimizer.grad_norm) > 1.0
        True
    """

    skip_above = Threshold(minimum=1.0, optional=True)

    def __init__(
        self,
        inner_optimizer: Optimizer | str | Mapping[str, Any],
        max_norm: ThresholdValue | None = None,
        *,
        clipper: Clipper | str | Mapping[str, Any] | Sequence[Any] | None = None,
        nonfinite: NonFinitePolicy = "propagate",
        max_consecutive_skips: int | None = None,
        skip_above: ThresholdValue | None = None,
        history_size: int = 10_000,
        max_weight: Any = None,
        name: str | None = None,
    ) -> None:
        inner = get_optimizer(inner_optimizer)
        check_wrappable(inner)
        chosen = _choose_clipper(max_norm, clipper)
        weight_groups = WeightGroups(max_weight)
        kept_history = History(history_size)
        # A callable, so that Keras makes no learning rate variable for the wrapper.
        super().__init__(learning_rate=lambda: 0.0, name=name)
        self.skip_above = skip_above
        held = held_thresholds(self)["skip_above"]
        skipping = Skipping(nonfinite, max_consecutive_skips, held)
        if skip_above is not None:
            _check_has_running_threshold(chosen, skip_above)
        chosen.claim(self.name)
        weight_groups.claim(self.name)
        self.clipper = chosen
        self._weight_groups = weight_groups
        self.inner_optimizer = inner
        self._grad_norm: Variable | None = None
        self._skipping = skipping
        self._history = kept_history
        self._variable_norms = VariableNorms()
        self._applying: Applying | None = None

    def add_variable(self, shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Variable:
        """Create a variable of the wrapper's own, which every device has all of."""
        return super().add_variable(shape, *args, **backend.on_every_device(len(shape)), **kwargs)

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the variables of the wrapped optimizer, of the clipper, and `grad_norm`."""
        if self.built:
            return
        inner = self.inner_optimizer
        if not inner.built:
            inner.build(list(variables))
        # A MultiOptimizer that chooses by a function knows its members from here on.
        check_wrappable(inner)
        trained = keras_private.trainable_variables(inner)
        with keras.name_scope(self.name):
            self.clipper.build_for(trained)
            self._weight_groups.build(trained, self.clipper.dtype)
        check_strategy(keeps_state=bool(self.clipper.state) or self._skipping.keeps_state)
        for variable in (*self.clipper.variables, *self._weight_groups.variables):
            keras_private.track(self, variable)
        self._grad_norm = self.add_variable(
            (), dtype=self.clipper.dtype, aggregation="only_first_replica", name="grad_norm"
        )
        self._skipping.build(self, trained)
        self._history.build(self, self.clipper.dtype)
        self._variable_norms.build(self, trained)
        # Last: whatever fails above may be mended and tried again.
        self._applying = self._make_applying()
        self._saved_state = SavedState(self.name, self._saved_variables(), self._history)
        self.built = True

    def _make_applying(self) -> Applying:
        return Applying(
            inner=InnerOptimizer(self.inner_optimizer),
            clipper=self.clipper,
            skipping=self._skipping,
            weights=self._weight_groups,
            grad_norm=self._grad_norm,
            history=self._history,
            variable_norms=self._variable_norms,
            own_variables=keras_private.own_variables(self),
        )

    def apply(
        self, grads: Gradients, trainable_variables: Sequence[Variable] | None = None
    ) -> None:
        """Clip the gradients of one batch and update the variables with them."""
        gradients = list(grads)
        variables = None if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self._build_on_first_use(variables)
        if not gradients:
            return
        known = variables or keras_private.trainable_variables(self.inner_optimizer)
        if len(gradients) != len(known):
            raise ValueError(
                "apply takes one gradient, or None, for each variable. Received "
                f"{len(gradients)} gradients for {len(known)} variables."
            )
        assert self._applying is not None  # made by `build`
        self._applying.apply(gradients, known)

    def _build_on_first_use(self, variables: list[Variable] | None) -> None:
        if variables is None and not self.inner_optimizer.built:
            raise ValueError(
                "apply was called without variables on an optimizer that is not built. Call "
                "optimizer.build(trainable_variables) first, or pass the variables."
            )
        self.build(variables or [])

    @property
    def grad_norm(self) -> Variable:
        """Global norm before clipping of the latest update: a scalar variable on the device.

        0 before the first update. Micro-batches of a gradient accumulation do not move it.
        Reading its value is the only moment at which the host waits for the device.
        """
        return self._once_built("_grad_norm", vars(self))

    @property
    def history(self) -> Record:
        """The latest `history_size` updates, as NumPy columns in order of time: a record.

        - `step`: number of updates before it, applied or skipped.
        - `grad_norm`: global norm before clipping.
        - `clip_threshold`: of the global norm; NaN for a clipper that limits something else.
        - `clip_scale`: norm after clipping over norm before, 1 where nothing was clipped, 0
          where the update was skipped.
        - `skipped`: whether the update was not applied.

        Micro-batches of a gradient accumulation are no updates. Reading it waits for the device.
        """
        return self._history.read()

    @property
    def history_size(self) -> int:
        """How many updates `history` goes back; fixed, as steps are compiled."""
        return self._history.size

    def record_variable_norms(self, every: int = 10, size: int = 1000) -> None:
        """Keep the norm of each variable's gradient, for `variable_norms`.

        To be called before the first step is compiled: one that is goes on without.
        `keras_clip.ClipMonitor` calls it for `per_variable=True`. What it keeps is not saved with
        the optimizer.

        Args:
            every: int of at least 1, keeps those of each so many updates. Those of the first
                update whose global norm is NaN or infinite are kept, too. Defaults to 10.
            size: int of at least 1, how many times are kept, the oldest making way. Defaults
                to 1000; takes 4 bytes for each variable and time.

        Raises:
            TypeError: an argument is no int.
            ValueError: an argument is below 1, or norms are recorded with other arguments.
        """
        self._variable_norms.start(every, size)
        if self.built:
            with backend.scope_of(self.grad_norm):
                known = keras_private.trainable_variables(self.inner_optimizer)
                self._variable_norms.build(self, known)

    @property
    def variable_norms(self) -> Record:
        """Norms by variable path, as NumPy columns in order of time, beside their `step`.

        Of gradients before clipping, 0 where a variable had none. Without columns of norms
        unless `record_variable_norms` was called.
        """
        return self._variable_norms.read()

    @property
    def skipped_steps(self) -> Variable:
        """Number of updates that were not applied at all: a scalar variable."""
        return self._once_built("skipped_steps", vars(self._skipping))

    @property
    def zeroed_steps(self) -> Variable:
        """Number of updates of which `nonfinite="zero"` set entries to 0: a scalar variable."""
        return self._once_built("zeroed_steps", vars(self._skipping))

    def _once_built(self, name: str, attributes: Mapping[str, Any]) -> Variable:
        if attributes.get(name) is None:
            raise AttributeError(
                f"{name.removeprefix('_')} is known once the optimizer is built: after "
                "optimizer.build(variables), or after the first step."
            )
        return attributes[name]

    @property
    def nonfinite(self) -> str:
        """What is done about gradients that are not finite; fixed, as steps are compiled."""
        return self._skipping.nonfinite

    @property
    def max_consecutive_skips(self) -> int | None:
        """How many updates may be skipped in a row; fixed, as steps are compiled."""
        return self._skipping.max_consecutive_skips

    def raise_if_nonfinite(self) -> None:
        """Raise the error of `nonfinite="raise"` or `max_consecutive_skips`, if one is due.

        For steps that cannot raise it themselves, being compiled by XLA or `torch.compile` or
        run on another device than the processor: there the updates are skipped until this is
        called. It waits for the device. In `fit`, `keras_clip.RaiseOnNonFinite` calls it at
        the end of each batch.

        Raises:
            NonFiniteGradientError: with `nonfinite="raise"`, names the variables.
            TooManySkipsError: more than `max_consecutive_skips` in a row were skipped.
        """
        self._skipping.watch(True)
        self._skipping.raise_if_due()

    @property
    def max_norm(self) -> Any:
        """The clipper's `max_norm`: a scalar variable, or the schedule it was given as.

        Assigning a number takes effect at the next update, also where the step is compiled.
        """
        return self.clipper.max_norm  # type: ignore[attr-defined]

    @max_norm.setter
    def max_norm(self, value: ThresholdValue) -> None:
        if not hasattr(type(self.clipper), "max_norm"):
            raise AttributeError(
                f"The clipper {type(self.clipper).__name__} has no max_norm to assign "
                f"{value!r} to. Its own attributes are on optimizer.clipper."
            )
        self.clipper.max_norm = value  # type: ignore[attr-defined]

    @property
    def max_weight(self) -> Any:
        """The bound of all weights: a scalar variable, a function of the step, or None.

        Of an optimizer with a dict of bounds, the dict, of which each `WeightClipping` has a
        `max_weight` to assign.
        """
        return self._weight_groups.value

    @max_weight.setter
    def max_weight(self, value: ThresholdValue) -> None:
        self._weight_groups.assign(value)

    @property
    def variables(self) -> list[Variable]:
        """The wrapped optimizer's variables, the clipper's, and `grad_norm`."""
        inner = vars(self).get("inner_optimizer")
        inherited = [] if inner is None else inner.variables
        return [*inherited, *keras_private.own_variables(self)]

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
        return self.inner_optimizer.scale_loss(loss)

    def exclude_from_weight_decay(self, *args: Any, **kwargs: Any) -> None:
        """Exclude variables from the wrapped optimizer's weight decay."""
        self.inner_optimizer.exclude_from_weight_decay(*args, **kwargs)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Overwrite variables as the wrapped optimizer does at the end of training."""
        self.inner_optimizer.finalize_variable_values(var_list)
        # `fit` comes here when it ends. An error that nobody watched for is raised now.
        self._skipping.watch(False)
        self._skipping.raise_if_due()

    def __getattr__(self, name: str) -> Any:
        """Find what the wrapper lacks, `beta_1` for one, on the wrapped optimizer."""
        if isinstance(getattr(type(self), name, None), property):
            # Python comes here when a property raises AttributeError; its message is the
            # one to show.
            return getattr(type(self), name).fget(self)
        # Frameworks keep their bookkeeping in private attributes; that is not shared.
        if name.startswith("_") or "inner_optimizer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner_optimizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the wrapped optimizer there, where it has an effect."""
        if name in ("inner_optimizer", "clipper") and name in vars(self):
            raise AttributeError(
                f"{name} is fixed when the ClippedOptimizer is made, as steps are compiled with "
                f"it. Make a new ClippedOptimizer. Received: {name}={value!r}."
            )
        if isinstance(getattr(type(self), name, None), Threshold):
            # Past Keras's tracking, which reads an attribute before it is first written.
            object.__setattr__(self, name, value)
        elif self._belongs_to_inner(name):
            setattr(self.inner_optimizer, name, value)
        else:
            super().__setattr__(name, value)

    def _belongs_to_inner(self, name: str) -> bool:
        inner = vars(self).get("inner_optimizer")
        if inner is None or name.startswith("_"):
            return False
        return name not in vars(self) and not hasattr(type(self), name) and hasattr(inner, name)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all of `variables`, in their order."""
        variables = self.variables
        if not self.built:
            raise ValueError(
                "You are calling `set_weights()` on an optimizer that has not yet been built. "
                "Call optimizer.build(trainable_variables) first."
            )
        if len(weights) != len(variables):
            raise ValueError(
                f"set_weights needs one value for each of the {len(variables)} variables. "
                f"Received {len(weights)} values."
            )
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Store the wrapped optimizer's variables, in the place and form of its own file.

        Keras stores the wrapper's own state by itself: see `keras_clip.saving`.
        """
        self.inner_optimizer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the wrapped optimizer's variables, also from the file of a bare optimizer."""
        self.inner_optimizer.load_own_variables(store)

    def __dir__(self) -> list[str]:
        """List the wrapped optimizer's attributes in its place.

        Keras saves every object that `dir` lists, and this one saves the wrapped optimizer.
        """
        inner = [name for name in dir(vars(self).get("inner_optimizer")) if name[0] != "_"]
        return sorted({*super().__dir__(), *inner} - {"inner_optimizer"})

    def _saved_variables(self) -> dict[str, Variable]:
        # Names of the wrapper's own have no dot, so that no two of these can be the same.
        named = {f"clipper.{v.name}": v for v in self.clipper.variables}
        named |= {f"weights.{v.name}": v for v in self._weight_groups.variables}
        other = (*self._history.variables, *self._variable_norms.variables)
        unsaved = {id(v) for v in (*named.values(), *other, *self._skipping.momentary)}
        own = keras_private.own_variables(self)
        return {**{v.name: v for v in own if id(v) not in unsaved}, **named}

    def get_config(self) -> dict[str, Any]:
        """Return what it was made with, thresholds as they are now."""
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "clipper": keras.saving.serialize_keras_object(self.clipper),
            "nonfinite": self.nonfinite,
            "max_consecutive_skips": self.max_consecutive_skips,
            "skip_above": held_thresholds(self)["skip_above"].get_config(),
            "history_size": self.history_size,
            "max_weight": self._weight_groups.get_config(),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Make the optimizer that `config` describes, in any form that the constructor takes."""
        made = dict(config)
        if isinstance(made.get("inner_optimizer"), Mapping):
            made["inner_optimizer"] = keras.optimizers.deserialize(
                dict(made["inner_optimizer"]), custom_objects=custom_objects
            )
        if isinstance(made.get("clipper"), Mapping):
            made["clipper"] = deserialize(made["clipper"], custom_objects)
        for name in ("max_norm", "skip_above"):
            if name in made:
                made[name] = threshold_from_config(made[name], custom_objects)
        made["max_weight"] = max_weight_from_config(made.get("max_weight"), custom_objects)
        return cls(**made)


def _check_has_running_threshold(clipper: Clipper, skip_above: Any) -> None:
    if not clipper.has_running_threshold:
        raise ValueError(
            "skip_above is a multiple of the clipper's threshold for one norm, and "
            f"{type(clipper).__name__} has none. Use ClipByGlobalNorm, AutoClip or ZClip, or leave "
            f"skip_above out. Received: skip_above={skip_above!r}."
        )


def _choose_clipper(max_norm: ThresholdValue | None, clipper: Any) -> Clipper:
    if clipper is None:
        return ClipByGlobalNorm(1.0 if max_norm is None else max_norm)
    if max_norm is not None:
        raise ValueError(
            "max_norm is short for clipper=ClipByGlobalNorm(max_norm), so only one of the two "
            f"can be given. Received: max_norm={max_norm!r}, clipper={clipper!r}."
        )
    found = get_member(clipper, "ClippedOptimizer")
    found.check_unclaimed()
    return found


tell_of_overflows(ClippedOptimizer, lambda wrapper: wrapper._skipping.overflowed())
