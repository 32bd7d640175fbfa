"""Check that an optimizer can be wrapped; the errors say what to write instead."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_clip._seam import keras_private
from keras_clip._seam.inherited_state import InheritedState
from keras_clip._seam.multi_optimizer import members_of
from keras_clip.types import Optimizer

KERAS_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def get_optimizer(identifier: Any) -> Optimizer:
    """Return the optimizer that `identifier` means, as `keras.optimizers.get` does."""
    if isinstance(identifier, Mapping):
        # `keras.optimizers.get` changes the dict that it receives.
        identifier = dict(identifier)
    elif not isinstance(identifier, str | keras.optimizers.Optimizer):
        raise TypeError(
            "inner_optimizer must be an instance of keras.optimizers.Optimizer, the name of one "
            f"('adam') or its config. {_hint(identifier)}Received: "
            f"inner_optimizer={identifier!r} of type {type(identifier).__name__}."
        )
    return keras.optimizers.get(identifier)


# By the library of an object.
_HINTS = {
    "tf_keras": "This one is of Keras 2 (tf_keras), whose optimizers have other methods. Unset "
    "TF_USE_LEGACY_KERAS, and make it and the model with Keras 3: keras.optimizers.{name}(...). ",
    "optax": "This one is of optax, which Keras models do not take. Wrap the Keras optimizer of "
    "that name, or keep optax and chain optax.clip_by_global_norm before it. ",
    "torch": "This one is of torch, which Keras models do not take. Wrap "
    "keras.optimizers.{name}(...), or keep torch and call keras_clip.clip_by_global_norm. ",
}


def _hint(identifier: Any) -> str:
    """Return advice for a user who passes an object of this type."""
    if isinstance(identifier, type):
        return f"This is a class. Make an instance: {identifier.__name__}(...). "
    library = type(identifier).__module__.split(".")[0]
    # An optax optimizer is a named tuple that optax's base module defines.
    return _HINTS.get(library, "").format(name=type(identifier).__name__)


def check_wrappable(optimizer: Optimizer) -> None:
    """Raise if a clip right before the update of `optimizer` would have another effect."""
    _check_no_loss_scale_optimizer(optimizer)
    _check_not_clipped_already(optimizer)
    _check_no_clip_of_keras(optimizer)
    keras_private.check_names(optimizer)
    for member in members_of(optimizer):
        check_wrappable(member)


def _check_no_loss_scale_optimizer(optimizer: Optimizer) -> None:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "A LossScaleOptimizer inside ClippedOptimizer would have its scaled gradients "
            "clipped. Put it outside: LossScaleOptimizer(ClippedOptimizer(inner)), which "
            "model.compile does by itself under the mixed_float16 policy. Received: "
            f"inner_optimizer={optimizer.name!r}."
        )


def _check_not_clipped_already(optimizer: Optimizer) -> None:
    if isinstance(optimizer, InheritedState):
        raise ValueError(
            f"inner_optimizer={optimizer.name!r} is a ClippedOptimizer. A second one around it "
            "would report the norm of clipped gradients. Set max_norm or clipper of the one "
            "there is, or wrap a new inner optimizer."
        )


def _check_no_clip_of_keras(optimizer: Optimizer) -> None:
    for argument in KERAS_CLIPS:
        value = getattr(optimizer, argument, None)
        if value is not None:
            raise ValueError(
                f"inner_optimizer={optimizer.name!r} clips by itself: {argument}={value!r}. Keras "
                "does that on each replica before the all-reduce, and its gradients would be "
                f"clipped twice. Set optimizer.{argument} = None, which keeps its moments, or "
                f"leave {argument} out, and write ClippedOptimizer(optimizer, max_norm={value!r}). "
                "keras_clip.adopt(model) does that to a compiled model."
            )
