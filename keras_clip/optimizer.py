"""The optimizer that wraps another optimizer and clips its gradients."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_clip._seam import backend, keras_private
from keras_clip._seam.inherited_state import InheritedState
from keras_clip._seam.inner_optimizer import InnerOptimizer
from keras_clip._seam.loss_scale import tell_of_overflows
from keras_clip._seam.strategies import check_strategy
from keras_clip.applying import Applying
from keras_clip.arguments.call_text import call_text
from keras_clip.arguments.hyperparameters import check_flag
from keras_clip.arguments.thresholds import Threshold, held_thresholds
from keras_clip.clippers import Clipper
from keras_clip.construction.from_config import arguments_from_config, choose_clipper, flat_config
from keras_clip.construction.wrappable import check_wrappable, get_optimizer
from keras_clip.limits import Limits
from keras_clip.readings import Readings
from keras_clip.records.history import History
from keras_clip.records.variable_norms import VariableNorms
from keras_clip.saving import SavedState
from keras_clip.skipping.decision import Skipping
from keras_clip.skipping.nonfinite import NonFinitePolicy, check_skip_above
from keras_clip.skipping.outliers import Outliers, SkipAbove
from keras_clip.skipping.seen_loss import SeesLoss
from keras_clip.types import Gradients, Optimizer, ThresholdValue, Variable
from keras_clip.weights.update_groups import UpdateGroups
from keras_clip.weights.weight_groups import WeightGroups


@keras.saving.register_keras_serializable(package="keras_clip")
class ClippedOptimizer(Limits, Readings, SeesLoss, InheritedState, keras.optimizers.Optimizer):  # type: ignore[misc]
    """Clip gradients right before the wrapped optimizer uses them.

    `inner_optimizer.update(clip(gradients))`, where the gradients are the whole batch's:
    unscaled, accumulated and summed over replicas. With the default clipper
    `clip(g)_i = g_i * min(1, max_norm / global_norm(g))`.

    Use it like the wrapped optimizer. Learning rate, iterations, weight decay, moving averages
    and all other attributes are those of the wrapped optimizer. Clipping acts on the gradients
    of the loss, before moments. Decoupled weight decay is untouched.

    Args:
        inner_optimizer: a `keras.optimizers.Optimizer`, its name or its config, as for
            `keras.optimizers.get`. A `MultiOptimizer` is clipped by the norm over all its members.
        max_norm: short for `clipper=ClipByGlobalNorm(max_norm)`: a number of at least 0, a
            `LearningRateSchedule` or a callable of the step. Defaults to 1.0. `float("inf")`
            observes: `grad_norm` is reported and gradients pass untouched.
        clipper: instead of `max_norm`: a `Clipper`, its name (`"auto_clip"`), its config, or a
            list of these, which act one after another. See `keras_clip.clippers.get`.
        nonfinite: the policy for an update whose global norm is NaN or infinite. It looks at the
            whole batch's gradients, so all replicas agree. `"propagate"`: the step shows the NaN,
            as in TensorFlow. `"skip"`: the update is not applied; weights, moments, iterations
            and the clipper's state stay bit for bit, and `skipped_steps` counts it. `"zero"`: NaN
            and infinite entries become 0, then the gradients are clipped, and `zeroed_steps`
            counts it. `"raise"`: the update is not applied, and an error names the variables; see
            `raise_if_nonfinite` for compiled steps. Defaults to `"propagate"`.
        max_consecutive_skips: int of at least 1: if more updates than this are skipped in a
            row, an error stops the training, as with `"raise"`. Defaults to None, no limit.
        skip_above: `Outliers()`, or a number of at least 1, a schedule or a callable of the step:
            an update is not applied if its norm exceeds this multiple of the clipper's threshold
            before the update, or is NaN. Weights, moments, iterations and the clipper's state
            stay as they were, and `skipped_steps` counts it. A multiple is for clippers with one
            threshold for one norm, such as `ClipByGlobalNorm` and `AutoClip`. Defaults to None.
        history_size: int, number of latest updates whose norms and thresholds stay on the
            device for `history` and `keras_clip.ClipMonitor`, 16 bytes each. Defaults to 10000,
            an epoch of ordinary size. 0 keeps none.
        max_update_ratio: the most that one update may change the weights, as a share of their
            norm: `norm(change) <= max_update_ratio * norm(weights)`, over all trained variables
            together. A number such as 0.003, a schedule, a callable of the step or an
            `UpdateClipping`; or a dict of path patterns to these or None, as for `max_weight`.
            Infinity limits nothing and records the share. Defaults to None, no limit.
        max_weight: bound that all trained variables are projected to after each update: a
            number, a schedule, a callable of the step or a `WeightClipping`; or a dict of path
            patterns (`re.fullmatch`, a path itself goes first) to these or None, where the key
            "default" is for all variables that no pattern matches; without it they have no
            bound. Defaults to None, no bounds.
        sum_repeated_rows: bool, whether the repeated rows of an embedding's `tf.IndexedSlices` on
            TensorFlow are summed before the update, as on JAX, on torch and by Keras's own clips.
            Otherwise Adam and others square each row before they sum it. Defaults to False: rows
            reach the update unchanged, as without a wrapper.
        name: str, defaults to "clipped_optimizer".

    Raises:
        TypeError: `max_norm` or `clipper` is of another type.
        ValueError: both `max_norm` and `clipper` are given, `max_norm` is negative or NaN,
            `nonfinite` is another word, `max_consecutive_skips` is below 1 or no option skips
            updates, `skip_above` is below 1 or the clipper has no threshold to multiply, or
            `inner_optimizer` clips by itself, scales the loss, or is already a wrapper.
        NonFiniteGradientError: at a step, with `nonfinite="raise"`.
        TooManySkipsError: at a step, with `max_consecutive_skips`. In a `tf.function` both are a
            `tf.errors.InvalidArgumentError` with the same text.
        ImportError: this Keras lacks a private name that keras_clip needs.

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

    skip_above = SkipAbove(minimum=1.0, optional=True, note=", keras_clip.Outliers()")

    def __init__(
        self,
        inner_optimizer: Optimizer | str | Mapping[str, Any],
        max_norm: ThresholdValue | None = None,
        *,
        clipper: Clipper | str | Mapping[str, Any] | Sequence[Any] | None = None,
        nonfinite: NonFinitePolicy = "propagate",
        max_consecutive_skips: int | None = None,
        skip_above: ThresholdValue | Outliers | None = None,
        history_size: int = 10_000,
        max_update_ratio: Any = None,
        max_weight: Any = None,
        sum_repeated_rows: bool = False,
        name: str | None = None,
    ) -> None:
        inner = get_optimizer(inner_optimizer)
        check_wrappable(inner)
        check_flag("sum_repeated_rows", sum_repeated_rows)
        chosen = choose_clipper(max_norm, clipper)
        update_groups = UpdateGroups(max_update_ratio)
        weight_groups = WeightGroups(max_weight)
        kept_history = History(history_size)
        # With a callable, Keras creates no learning rate variable for the wrapper.
        super().__init__(learning_rate=lambda: 0.0, name=name)
        self.skip_above = skip_above
        held = held_thresholds(self)["skip_above"]
        skipping = Skipping(nonfinite, max_consecutive_skips, held)
        check_skip_above(skip_above, chosen)
        chosen.claim(self.name)
        update_groups.claim(self.name)
        weight_groups.claim(self.name)
        self.clipper = chosen
        self._update_groups = update_groups
        self._weight_groups = weight_groups
        self.inner_optimizer = inner
        self._grad_norm: Variable | None = None
        self._skipping = skipping
        self._history = kept_history
        self._variable_norms = VariableNorms()
        self._sum_repeated_rows = sum_repeated_rows
        self._applying: Applying | None = None

    def add_variable(self, shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Variable:
        """Create a variable of the wrapper, whole on every device."""
        return super().add_variable(shape, *args, **backend.on_every_device(len(shape)), **kwargs)

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the variables of the wrapped optimizer, of the clipper, and `grad_norm`."""
        if self.built:
            return
        inner = self.inner_optimizer
        if not inner.built:
            inner.build(list(variables))
        # A MultiOptimizer that chooses by a function knows its members only now.
        check_wrappable(inner)
        trained = keras_private.trainable_variables(inner)
        with keras.name_scope(self.name):
            self.clipper.build_for(trained)
            self._update_groups.build(trained, self.clipper.dtype)
            self._weight_groups.build(trained, self.clipper.dtype)
        keeps_state = bool(self.clipper.state) or self._skipping.keeps_state
        check_strategy(keeps_state or bool(self._update_groups))
        for variable in self._named_parts().values():
            keras_private.track(self, variable)
        self._grad_norm = self.add_variable(
            (), dtype=self.clipper.dtype, aggregation="only_first_replica", name="grad_norm"
        )
        self._skipping.build(self, trained)
        measures = bool(self._update_groups)
        self._history.build(self, self.clipper.dtype, with_update_ratios=measures)
        self._variable_norms.build(self, trained)
        # Last, so that `build` can be repeated after an error above.
        self._applying = self._make_applying()
        self._saved_state = SavedState(self.name, self._saved_variables(), self._history)
        self.built = True

    def _make_applying(self) -> Applying:
        return Applying(
            inner=InnerOptimizer(self.inner_optimizer),
            clipper=self.clipper,
            skipping=self._skipping,
            weights=self._weight_groups,
            changes=self._update_groups,
            grad_norm=self._grad_norm,
            history=self._history,
            variable_norms=self._variable_norms,
            own_variables=keras_private.own_variables(self),
            sum_repeated_rows=self._sum_repeated_rows,
        )

    def apply(
        self,
        grads: Gradients,
        trainable_variables: Sequence[Variable] | None = None,
        *,
        loss: Any = None,
    ) -> None:
        """Clip the gradients of one batch and update the variables with them.

        `loss` is the loss of the batch, for `skip_above=Outliers(of="loss")`.
        """
        losses = self._skipping.seen_loss.take(loss, self._skipping.reads_loss)
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
        self._applying.apply(gradients, known, losses)

    def _build_on_first_use(self, variables: list[Variable] | None) -> None:
        if variables is None and not self.inner_optimizer.built:
            raise ValueError(
                "apply was called without variables on an optimizer that is not built. Call "
                "optimizer.build(trainable_variables) first, or pass the variables."
            )
        self.build(variables or [])

    @property
    def nonfinite(self) -> str:
        """The policy for gradients that are not finite; fixed, because steps are compiled."""
        return self._skipping.nonfinite

    @property
    def max_consecutive_skips(self) -> int | None:
        """How many updates may be skipped in a row; fixed, because steps are compiled."""
        return self._skipping.max_consecutive_skips

    @property
    def variables(self) -> list[Variable]:
        """The wrapped optimizer's variables, the clipper's, and `grad_norm`."""
        inner = vars(self).get("inner_optimizer")
        inherited = [] if inner is None else inner.variables
        return [*inherited, *keras_private.own_variables(self)]

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Overwrite variables as the wrapped optimizer does at the end of training, and raise."""
        super().finalize_variable_values(var_list)
        self._skipping.watch(False)
        # `fit` calls this when it ends, also after an error, which another error must not hide. On
        # JAX, variables then have no value.
        if sys.exception() is None:
            self._skipping.raise_if_due()

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise for options that steps are compiled with; set thresholds past Keras's tracking."""
        if name in ("inner_optimizer", "clipper") and name in vars(self):
            raise AttributeError(
                f"{name} is fixed when the ClippedOptimizer is made: steps are compiled with it. "
                f"Make a new ClippedOptimizer. Received: {name}={value!r}."
            )
        if isinstance(getattr(type(self), name, None), Threshold):
            # Keras's tracking reads an attribute before its first assignment.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assign all of `variables`, in their order."""
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

    def _saved_variables(self) -> dict[str, Variable]:
        named = self._named_parts()
        other = (*self.record_variables, *self._skipping.momentary)
        unsaved = {id(v) for v in (*named.values(), *other)}
        own = keras_private.own_variables(self)
        return {**{v.name: v for v in own if id(v) not in unsaved}, **named}

    def _named_parts(self) -> dict[str, Variable]:
        # Other names of the wrapper have no dot, so no two names are equal.
        parts = {
            "clipper": self.clipper.variables,
            "updates": self._update_groups.variables,
            "weights": self._weight_groups.variables,
        }
        return {f"{part}.{v.name}": v for part, own in parts.items() for v in own}

    def __repr__(self) -> str:
        return call_text(self)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments, with the current thresholds, and the learning rate."""
        return {
            "name": self.name,
            **flat_config(self.inner_optimizer, self.clipper),
            "nonfinite": self.nonfinite,
            "max_consecutive_skips": self.max_consecutive_skips,
            "skip_above": held_thresholds(self)["skip_above"].get_config(),
            "history_size": self.history_size,
            "max_update_ratio": self._update_groups.get_config(),
            "max_weight": self._weight_groups.get_config(),
            "sum_repeated_rows": self._sum_repeated_rows,
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Return the optimizer of `config`, whose entries have any form of the arguments."""
        return cls(**arguments_from_config(config, custom_objects))


tell_of_overflows(ClippedOptimizer, lambda wrapper: wrapper._applying.overflowed())
