"""Clip each unit by the norm of its weights."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_clip.arguments.thresholds import Threshold, check_number
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.update import Update
from keras_clip.layers.given_layers import GivenLayers
from keras_clip.layers.paths import PathPatterns, path_of
from keras_clip.layers.units import Axes, axes_of_optax
from keras_clip.norms.units import clip_units
from keras_clip.types import Gradient, ThresholdValue, Variable


@keras.saving.register_keras_serializable(package="keras_clip")
class AdaptiveGradientClipping(Clipper):
    """Limit the norm of each unit's gradient to a fraction of the norm of its weights.

    `clipped_u = g_u * min(1, clipping * max(norm(w_u), eps) / max(norm(g_u), 1e-6))`

    where the unit `u` is the set of weights of one output: a column of Dense, a filter of a
    convolution, a row of an embedding, one output of one head of attention. A bias and the gain
    of a normalization are one unit each. A unit at or below its limit passes bit for bit. A NaN
    stays in its unit.

    Pass `layers=model`, so that each Keras layer tells the units of its variables. Without it,
    the names of variables tell the units for many layers. All others follow the rule of optax,
    and a warning names them.

    Once the optimizer is built, `unit_axes` holds the axes of the units of each variable, by
    path, without the variables in `exclude`.

    Args:
        clipping: fraction, at least 0: a number, a `LearningRateSchedule` or a callable of
            the step. Defaults to 0.01. 0 makes every gradient zero; `float("inf")` changes
            nothing. You can assign a number at any time.
        eps: float, at least 0, the smallest norm of weights that is used. Defaults to 1e-3.
            Weights that start at zero can change by `clipping * eps` only, and with 0 never.
        layers: the trained model, a layer, or a list of them. They are read when the optimizer
            is built, and the config keeps the units, not the layers. Defaults to None.
        axes: dict of path patterns to an int or a tuple of int, the axes of a unit, in place of
            those of its layer; `()` makes each entry a unit. A pattern is the path itself or a
            regular expression for the whole path. Defaults to None.
        exclude: pattern, or list of patterns, of variables to leave unclipped. The authors
            exclude the classification layer. Defaults to none.

    Raises:
        TypeError: an argument is of another type.
        ValueError: `clipping` or `eps` is negative or NaN, or a pattern is not a regular
            expression. When the optimizer is built: several of `axes` match one variable, an
            axis is out of range, or `layers` has none of the variables. At the first step: a
            pattern matches no variable; the message lists the paths.

    Reference:
        Brock, De, Smith, Simonyan 2021, arXiv 2102.06171; `optax.adaptive_grad_clip`, which
        looks only at the shape. Units agree for Dense and Conv2D. They differ for many other
        layers: optax uses columns of an embedding, this class uses rows. optax refuses ranks
        above 5; here its rule then uses all axes but the last.

    Example:
        >>> import keras, keras_clip
        >>> model = keras.Sequential(
        ...     [keras.Input((8, 2)), keras.layers.Conv1D(3, 4, name="body"),
        ...      keras.layers.Dense(1, name="head")]
        ... )
        >>> clipper = keras_clip.AdaptiveGradientClipping(
        ...     0.01, layers=model, exclude=".*/head/.*"
        ... )
        >>> optimizer = keras_clip.ClippedOptimizer("sgd", clipper=clipper)
        >>> optimizer.build(model.trainable_variables)
        >>> [axes for path, axes in clipper.unit_axes.items() if "kernel" in path]
        [(0, 1)]
    """

    clipping = Threshold()

    def __init__(
        self,
        clipping: ThresholdValue = 0.01,
        eps: float = 1e-3,
        *,
        layers: Any = None,
        axes: Mapping[str, int | Sequence[int]] | None = None,
        exclude: str | Sequence[str] = (),
    ) -> None:
        self.clipping = clipping
        self.eps = check_number("eps", eps)
        self._layers = GivenLayers(layers)
        self.axes = _check_axes(axes)
        self.exclude = _check_exclude(exclude)
        self._overrides = PathPatterns("axes", self.axes)
        self._excluded = PathPatterns("exclude", self.exclude, may_overlap=True)
        self.unit_axes: dict[str, Axes] = {}
        self._axes_by_id: dict[int, Axes | None] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Find the axes of the units of each variable."""
        self._overrides.build(variables)
        self._excluded.build(variables)
        self.unit_axes = {}
        guessed: dict[str, Axes] = {}
        for variable, units in zip(variables, self._layers.units_of(variables), strict=True):
            if self._excluded.of(variable) is not None:
                self._axes_by_id[id(variable)] = None
                continue
            path = path_of(variable)
            pattern = self._overrides.of(variable)
            axes = units.axes
            if pattern is not None:
                axes = _normalized(self.axes[pattern], len(variable.shape), pattern, path)
            elif axes is None:
                axes = guessed[path] = axes_of_optax(variable.shape)
            self._axes_by_id[id(variable)] = self.unit_axes[path] = axes
        if guessed:
            _warn_of_guesses(guessed)

    def clip(self, update: Update) -> list[Gradient]:
        """Scale the units above their limit."""
        self._overrides.check_all_used()
        self._excluded.check_all_used()
        clipped = list(update.gradients)
        known = [self._axes_by_id[id(variable)] for variable in update.variables]
        included = [(i, axes) for i, axes in enumerate(known) if axes is not None]
        changed = clip_units(
            [update.gradients[i] for i, _ in included],
            [ops.convert_to_tensor(update.variables[i]) for i, _ in included],
            update.evaluate(self.clipping),
            [axes for _, axes in included],
            self.eps,
        )
        for (position, _), gradient in zip(included, changed, strict=True):
            clipped[position] = gradient
        return clipped

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the current `clipping`."""
        return {
            **super().get_config(),
            "eps": self.eps,
            "layers": self._layers.get_config(),
            "axes": {pattern: list(axes) for pattern, axes in self.axes.items()} or None,
            "exclude": list(self.exclude),
        }


def _warn_of_guesses(guessed: Mapping[str, Axes]) -> None:
    path, axes = next(iter(guessed.items()))
    warnings.warn(
        f"AdaptiveGradientClipping does not know the units of {len(guessed)} variables, as their "
        f"names do not tell which layers they belong to. It takes the axes that optax takes for "
        f"their shapes: {dict(guessed)}. Pass AdaptiveGradientClipping(layers=model) to go by the "
        "layers. For a layer that is not one of Keras, pass axes, such as "
        f"axes={{{path!r}: {axes!r}}}.",
        stacklevel=2,
    )


def _check_axes(axes: Any) -> dict[str, Axes]:
    if axes is None:
        return {}
    if not isinstance(axes, Mapping):
        raise TypeError(
            "axes must be a dict of path patterns to an int or a tuple of int, such as "
            f"{{'.*/kernel': (0, 1)}}. Received: axes={axes!r}."
        )
    return {pattern: _check_own_axes(own, pattern) for pattern, own in axes.items()}


def _check_own_axes(axes: Any, pattern: Any) -> Axes:
    listed = [axes] if isinstance(axes, int) else axes
    is_sequence = isinstance(listed, Sequence) and not isinstance(listed, str)
    if not is_sequence or not all(type(axis) is int for axis in listed):
        raise TypeError(
            "The values of axes must be an int or a tuple of int. "
            f"Received: axes={{{pattern!r}: {axes!r}}}."
        )
    return tuple(listed)


def _check_exclude(exclude: Any) -> list[str]:
    patterns = [exclude] if isinstance(exclude, str) else exclude
    if not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(
            "exclude must be a path pattern, a str, or a list of them. "
            f"Received: exclude={exclude!r}."
        )
    return list(patterns)


def _normalized(axes: Axes, rank: int, pattern: str, path: str) -> Axes:
    """Return the axes counted from the front, in order."""
    in_range = all(-rank <= axis < rank for axis in axes)
    distinct = sorted({axis % rank for axis in axes}) if in_range and axes else []
    if not in_range or len(distinct) != len(axes):
        raise ValueError(
            f"axes={{{pattern!r}: {axes!r}}} does not fit the variable {path!r} of rank {rank}: "
            f"give distinct axes from {-rank} to {rank - 1}."
        )
    return tuple(distinct)
