"""The constructor arguments of a `ClippedOptimizer`, by their forms, in and from a config."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_clip.arguments.thresholds import threshold_from_config
from keras_clip.clippers import ClipByGlobalNorm, Clipper
from keras_clip.clippers.registry import deserialize, get_member
from keras_clip.types import ThresholdValue
from keras_clip.weights.threshold_groups import groups_from_config


def flat_config(inner_optimizer: Any, clipper: Clipper) -> dict[str, Any]:
    """Return the config of both, with learning rate and `max_norm` where trackers log them.

    Trackers cut off nested configs.
    """
    inner = keras.saving.serialize_keras_object(inner_optimizer)
    config = {"inner_optimizer": inner}
    if "learning_rate" in inner["config"]:
        config["learning_rate"] = inner["config"]["learning_rate"]
    if type(clipper) is ClipByGlobalNorm and clipper.norm_type == 2.0:
        return {**config, "max_norm": clipper.get_config()["max_norm"], "clipper": None}
    return {**config, "clipper": keras.saving.serialize_keras_object(clipper)}


def arguments_from_config(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of `config`, whose entries have any form of the arguments."""
    made = dict(config)
    inner = made.get("inner_optimizer")
    if "learning_rate" in made:
        inner = made["inner_optimizer"] = _with_learning_rate(inner, made.pop("learning_rate"))
    # Keras finds some optimizers only by their module.
    if isinstance(inner, Mapping) and "module" in inner:
        made["inner_optimizer"] = keras.saving.deserialize_keras_object(
            dict(inner), custom_objects=custom_objects
        )
    if isinstance(made.get("clipper"), Mapping):
        made["clipper"] = deserialize(made["clipper"], custom_objects)
    for name in ("max_norm", "skip_above"):
        if name in made:
            made[name] = threshold_from_config(made[name], custom_objects)
    for name in ("max_update_ratio", "max_weight"):
        made[name] = groups_from_config(made.get(name), custom_objects)
    return made


def _with_learning_rate(inner: Any, learning_rate: Any) -> Any:
    if not isinstance(inner, Mapping):
        raise ValueError(
            "A learning_rate in the config of a ClippedOptimizer needs the config of the wrapped "
            f"optimizer. Received: inner_optimizer={inner!r}."
        )
    return {**inner, "config": {**inner["config"], "learning_rate": learning_rate}}


def choose_clipper(max_norm: ThresholdValue | None, clipper: Any) -> Clipper:
    """Return the clipper that the two arguments mean, which belongs to no optimizer yet."""
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
