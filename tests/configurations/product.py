"""The same configurations made of Keras and keras_clip."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_clip
from tests.configurations.configuration import (
    PATHS,
    Assignment,
    Clip,
    Configuration,
    Decay,
    Learned,
    Line,
    first_weights,
)
from tests.configurations.emulation.skipping import Outcome
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import as_tensors


@keras.saving.register_keras_serializable("tests")
class Straight:
    """A callable of the step, `start + slope * step`."""

    def __init__(self, start: float, slope: float) -> None:
        self.start, self.slope = start, slope

    def __call__(self, step: Any) -> Any:
        return self.start + self.slope * keras.ops.cast(step, "float32")

    def get_config(self) -> dict[str, Any]:
        return {"start": self.start, "slope": self.slope}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Straight":
        return cls(**config)


def _threshold(value: Any) -> Any:
    if isinstance(value, Decay):
        return keras.optimizers.schedules.ExponentialDecay(value.initial, value.steps, value.rate)
    return Straight(value.start, value.slope) if isinstance(value, Line) else value


def _skip_above(value: Any) -> Any:
    if isinstance(value, Learned):
        return keras_clip.Outliers(value.multiple, value.window, value.warm_up, of=value.of)  # type: ignore[arg-type]
    return _threshold(value)


def _clipper(clip: Clip | None) -> Any:
    if clip is None:
        return None
    arguments = {name: _threshold(value) for name, value in clip.arguments}
    members = [_clipper(member) for member in clip.members]
    if clip.kind == "Chain":
        return keras_clip.Chain(members)
    if clip.kind == "ObserveOnly":
        return keras_clip.ObserveOnly(members[0])
    if clip.kind == "ClipperMap":
        return keras_clip.ClipperMap(
            members[-1], dict(zip(clip.patterns, members[:-1], strict=True))
        )
    if clip.kind == "AGC":
        return keras_clip.AdaptiveGradientClipping(**arguments)
    if "low" in arguments:
        return keras_clip.ClipByValue((arguments["low"], arguments["high"]))
    return getattr(keras_clip, clip.kind)(**arguments)


def _member(clipper: Any, clip: Clip, owner: tuple[int, ...]) -> Any:
    for place in owner:
        if clip.kind == "ClipperMap":
            groups = [*(clipper[pattern] for pattern in clip.patterns), clipper.default_clipper]
            clipper = groups[place]
        else:
            clipper = clipper.members[place]
        following = clip.members[place]
        assert following is not None
        clip = following
    return clipper


def _max_weight(given: Any) -> Any:
    if given is None:
        return None
    kind, bound, *other = given
    if kind == "fan_in":
        return keras_clip.WeightClipping(_threshold(bound), scale_by_fan_in=True)
    if kind == "groups":
        return {".*head/.*": _threshold(bound), "default": _threshold(other[0])}
    return _threshold(bound)


def _max_update_ratio(given: Any) -> Any:
    if given is None:
        return None
    kind, ratio, *other = given
    if kind == "each":
        return keras_clip.UpdateClipping(_threshold(ratio), per_variable=True)
    if kind == "groups":
        return {".*head/.*": _threshold(ratio), "default": _threshold(other[0])}
    return _threshold(ratio)


def _optimizer(configuration: Configuration) -> Any:
    average, frequency = configuration.ema or (0.99, None)
    rule, decay = configuration.rule, configuration.weight_decay
    inner = getattr(keras.optimizers, rule.name)(
        learning_rate=_threshold(configuration.learning_rate),
        use_ema=configuration.ema is not None,
        ema_momentum=average,
        ema_overwrite_frequency=frequency,
        loss_scale_factor=configuration.loss_scale,
        gradient_accumulation_steps=configuration.accumulation,
        **dict(rule.arguments),
        # AdamW has a decay of its own, and takes no None.
        **({} if decay is None else {"weight_decay": decay}),
    )
    return keras_clip.ClippedOptimizer(
        inner,
        clipper=_clipper(configuration.clipper),
        nonfinite=configuration.nonfinite,  # type: ignore[arg-type]
        max_consecutive_skips=configuration.max_consecutive_skips,
        skip_above=_skip_above(configuration.skip_above),
        history_size=configuration.history_size,
        max_weight=_max_weight(configuration.max_weight),
        max_update_ratio=_max_update_ratio(configuration.max_update_ratio),
    )


def _model(configuration: Configuration) -> Any:
    constraint = keras.constraints.NonNeg() if configuration.constraint else None
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="hidden", kernel_constraint=constraint),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.set_weights(first_weights(configuration))
    model.compile(_optimizer(configuration), loss="mse")
    return model


class Product:
    """A model that is trained with the gradients of a configuration."""

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self.configuration = configuration
        self.folder = folder
        self._start(_model(configuration))

    def _start(self, model: Any) -> None:
        self.model, self.optimizer = model, model.optimizer
        self.variables = model.trainable_variables
        assert all(v.path.endswith(p) for v, p in zip(self.variables, PATHS, strict=True))
        self._waits = self._mode in ("jit", "xla")
        self._step = self._make_step()
        if self._waits:
            self.optimizer.raise_if_nonfinite()

    @property
    def _mode(self) -> str:
        mode, backend = self.configuration.mode, keras.config.backend()
        if mode == "eager" or backend == "torch":
            return "eager"
        return "jit" if backend == "jax" else mode

    def _make_step(self) -> Any:
        if self._mode != "eager":
            return compiled_step(self.optimizer, self.variables, jit_compile=self._mode == "xla")
        self.optimizer.build(self.variables)
        return lambda given, loss: self.optimizer.apply(
            as_tensors(given), self.variables, loss=loss
        )

    def assign(self, assignment: Assignment) -> None:
        """Give a number to a threshold."""
        if assignment.owner == "skip_above":
            self.optimizer.skip_above = assignment.value
        elif assignment.owner in ("max_weight", "max_update_ratio"):
            held = getattr(self.optimizer, assignment.name)
            owner = held[".*head/.*"] if isinstance(held, dict) else self.optimizer
            setattr(owner, assignment.name, assignment.value)
        else:
            owner = _member(self.optimizer.clipper, self.configuration.clipper, assignment.owner)
            setattr(owner, assignment.name, assignment.value)

    def apply(self, gradients: list[np.ndarray], loss: np.float32 | None) -> Outcome | None:
        """Run one call; return the error that it raises."""
        given: list[Any] = list(gradients)
        if self.configuration.missing is not None:
            given[self.configuration.missing] = None
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Gradients do not exist")
                self._step(given, None if loss is None else keras.ops.convert_to_tensor(loss))
            if self._waits:
                self.optimizer.raise_if_nonfinite()
        except Exception as error:
            return _outcome(error)
        return None

    def resume(self) -> None:
        """Save, load, and go on with the loaded model."""
        assert self.configuration.resume is not None
        if self.configuration.resume[1] == "model file":
            path = self.folder / "model.keras"
            self.model.save(path)
            self._start(keras.saving.load_model(path))
            return
        path = self.folder / "model.weights.h5"
        self.model.save_weights(path)
        for variable in (*self.variables, *self.optimizer.variables):
            variable.assign(np.zeros(variable.shape, variable.dtype))
        self.model.load_weights(path)

    def observed(self) -> list[tuple[float, ...]]:
        """The numbers of every `ObserveOnly`, outermost first."""
        found: list[tuple[float, ...]] = []

        def collect(clipper: Any) -> None:
            if isinstance(clipper, keras_clip.ObserveOnly):
                own = (clipper.updates, clipper.clipped_updates, clipper.clipped_norm)
                found.append(tuple(float(variable.numpy()) for variable in own))
            for member in clipper.members:
                collect(member)

        collect(self.optimizer.clipper)
        return found


_ERRORS = {
    "nonfinite=": "NonFiniteGradientError",
    "max_consecutive_skips=": "TooManySkipsError",
}


def _outcome(error: Exception) -> Outcome:
    """A raised error; in a graph of TensorFlow its class is another."""
    text = str(error)
    known = [name for part, name in _ERRORS.items() if part in text]
    if len(known) != 1 or type(error).__name__ not in (*known, "InvalidArgumentError"):
        raise error
    return Outcome(known[0], tuple(path for path in PATHS if path in text))
