"""Replace Keras's own clip of an optimizer by the wrapper, in the middle of a run."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from keras_clip._seam import backend
from keras_clip._seam.compiled_model import compile_again
from keras_clip._seam.inherited_state import InheritedState
from keras_clip._seam.multi_optimizer import is_multi_optimizer, members_of
from keras_clip.clippers import ClipByGlobalNorm, ClipByNorm, ClipByValue, Clipper
from keras_clip.construction.wrappable import KERAS_CLIPS
from keras_clip.optimizer import ClippedOptimizer
from keras_clip.types import Optimizer

_CLIPPERS: dict[str, type[Clipper]] = {
    "clipnorm": ClipByNorm,
    "clipvalue": ClipByValue,
    "global_clipnorm": ClipByGlobalNorm,
}


@dataclass(frozen=True)
class Adoption:
    """The result of `keras_clip.adopt`; `print(adoption)` shows `changes`.

    Args:
        optimizer: the optimizer to train with: a `ClippedOptimizer`, or the
            `LossScaleOptimizer` around it.
        changes: str, one paragraph: what was changed, and where steps now differ.

    Raises:
        FrozenInstanceError: an attribute is assigned.

    Example:
        >>> import keras, keras_clip
        >>> adoption = keras_clip.adopt(keras.optimizers.SGD(clipvalue=0.5))
        >>> adoption.optimizer.clipper.max_value
        0.5
    """

    optimizer: Optimizer
    changes: str

    def __str__(self) -> str:
        return self.changes


def adopt(model_or_optimizer: Any) -> Adoption:
    """Replace the `clipnorm`, `clipvalue` or `global_clipnorm` of an optimizer by a wrapper.

    `Adam(global_clipnorm=c)` becomes `ClippedOptimizer(Adam(), clipper=ClipByGlobalNorm(c))`,
    `clipnorm` becomes `ClipByNorm`, and `clipvalue` becomes `ClipByValue`.

    The optimizer itself goes on inside the wrapper with all its state, and its own clip is set to
    None. A `LossScaleOptimizer` stays outside with its scale. A `MultiOptimizer` is wrapped as one
    if all its members have the same clip. A compiled model is compiled again with the wrapper
    and with its other arguments. It trains on with its moments.

    Args:
        model_or_optimizer: a compiled `keras.Model`, or a `keras.optimizers.Optimizer` that no
            compiled model uses.

    Returns:
        An `Adoption`: the optimizer to use from now on, and what changed.

    Raises:
        TypeError: the argument is neither a model nor an optimizer.
        ValueError: the model is not compiled, the optimizer does not clip or is wrapped already,
            or members of a `MultiOptimizer` have different clips. The message says what to write.
            Nothing is changed then.

    Reference:
        Keras clips each replica's gradients before the all-reduce, the wrapper clips their sum.
        The page "Coming from another clip" lists all differences.

    Example:
        >>> import keras, numpy as np, keras_clip
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(global_clipnorm=1.0), loss="mse")
        >>> history = model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        >>> adoption = keras_clip.adopt(model)
        >>> int(model.optimizer.iterations), float(model.optimizer.max_norm)
        (1, 1.0)
    """
    if isinstance(model_or_optimizer, keras.Model):
        model = model_or_optimizer
        adoption = _adopt_optimizer(_optimizer_of(model))
        compile_again(model, adoption.optimizer)
        compiled = "The model is compiled again with the same loss, metrics and other arguments."
        return Adoption(adoption.optimizer, f"{adoption.changes} {compiled}")
    if isinstance(model_or_optimizer, keras.optimizers.Optimizer):
        return _adopt_optimizer(model_or_optimizer)
    raise TypeError(
        "adopt takes a compiled keras.Model or a keras.optimizers.Optimizer. "
        f"Received: {model_or_optimizer!r} of type {type(model_or_optimizer).__name__}."
    )


def _optimizer_of(model: Any) -> Optimizer:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            f"The model {model.name!r} has no optimizer. Compile it with the wrapper: "
            "model.compile(ClippedOptimizer(optimizer, max_norm=1.0), loss=...)."
        )
    return optimizer


def _adopt_optimizer(optimizer: Optimizer) -> Adoption:
    has_scale = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner = optimizer.inner_optimizer if has_scale else optimizer
    clip = _clip_of(inner)
    wrapper = _wrapped(inner, clip)
    if has_scale:
        optimizer.inner_optimizer = wrapper
    changes = _changes(inner, clip, wrapper, has_scale)
    return Adoption(optimizer if has_scale else wrapper, changes)


class _Clip(NamedTuple):
    """One of Keras's clips; `str` is the argument as a user writes it."""

    argument: str
    value: Any

    def __str__(self) -> str:
        return f"{self.argument}={self.value!r}"


def _clip_of(optimizer: Optimizer) -> _Clip:
    """Return the clip of an optimizer, or the one that all members have; raise without one."""
    members = members_of(optimizer)
    if is_multi_optimizer(optimizer) and not members:
        raise ValueError(
            f"The MultiOptimizer {optimizer.name!r} chooses its members by a function, and is not "
            "built yet. Call optimizer.build(model.trainable_variables) first."
        )
    clips = [_single_clip(member) for member in members or [optimizer]]
    if len(set(clips)) > 1:
        given = ", ".join(f"{m.name!r} {c}" for m, c in zip(members, clips, strict=True))
        raise ValueError(
            f"The members of the MultiOptimizer {optimizer.name!r} have different clips: {given}. "
            "One wrapper has one clipper. Set these clips to None on each member, and write "
            "ClippedOptimizer(optimizer, clipper=ClipperMap(default, {path_pattern: clipper})), "
            "with the patterns of the OptimizerMap."
        )
    return clips[0]


def _single_clip(optimizer: Optimizer) -> _Clip:
    if isinstance(optimizer, InheritedState):
        raise ValueError(
            f"{optimizer.name!r} is a ClippedOptimizer already. Assign its thresholds, such as "
            "optimizer.max_norm = 1.0, or make a new one: "
            "ClippedOptimizer(optimizer.inner_optimizer, clipper=...)."
        )
    given = [_Clip(name, getattr(optimizer, name, None)) for name in KERAS_CLIPS]
    clips = [clip for clip in given if clip.value is not None]
    kind = f"{type(optimizer).__name__} {optimizer.name!r}"
    if not clips:
        raise ValueError(
            f"The {kind} has no clipnorm, clipvalue or global_clipnorm to adopt. Wrap it: "
            "ClippedOptimizer(optimizer, max_norm=1.0)."
        )
    if len(clips) > 1 or not clips[0].value > 0:
        raise ValueError(
            f"The {kind} has {', '.join(map(str, clips))}. Keras uses only one clip, and ignores "
            "one that is not above 0. Set all but one to None, or set all to None and write "
            "ClippedOptimizer(optimizer, max_norm=1.0)."
        )
    return clips[0]


def _wrapped(optimizer: Optimizer, clip: _Clip) -> ClippedOptimizer:
    """Move a clip from an optimizer, or from all its members, to a wrapper."""
    owners = members_of(optimizer) or [optimizer]
    for owner in owners:
        setattr(owner, clip.argument, None)
    try:
        # Keras's own clips sum repeated rows too.
        clipper = _CLIPPERS[clip.argument](clip.value)  # type: ignore[call-arg]
        wrapper = ClippedOptimizer(optimizer, clipper=clipper, sum_repeated_rows=True)
        if optimizer.built:
            with backend.scope_of(optimizer.variables[0]):
                wrapper.build([])
    except Exception:
        for owner in owners:
            setattr(owner, clip.argument, clip.value)
        raise
    return wrapper


def _changes(optimizer: Optimizer, clip: _Clip, wrapper: ClippedOptimizer, has_scale: bool) -> str:
    members = members_of(optimizer)
    sentences = [
        f"The clip {clip} of the {type(optimizer).__name__} {optimizer.name!r} is None now, and "
        f"the {type(wrapper.clipper).__name__}({clip.value!r}) of a ClippedOptimizer around it "
        "clips instead.",
        "The optimizer keeps its moments, counters and learning rate."
        if optimizer.built
        else "The optimizer is not built and has no moments yet.",
        "On one device, steps agree with those before to 1e-6.",
        "On several replicas of tf.distribute, Keras clipped the gradients of each replica; the "
        "wrapper clips their sum, so the same number clips more.",
    ]
    if has_scale:
        sentences.insert(1, "The LossScaleOptimizer stays outside, with its scale.")
    if len(members) > 1 and clip.argument == "global_clipnorm":
        sentences[-2] = (
            f"Each of the {len(members)} members had a norm of its own. There is now one norm "
            "over all of them, so the same number clips more."
        )
    return " ".join(sentences)
