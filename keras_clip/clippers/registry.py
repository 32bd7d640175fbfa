"""Clippers by name and by config, as `keras.optimizers.get` finds optimizers."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_clip.clippers.clipper import Clipper

_PACKAGE = "keras_clip>"


def get(identifier: Any) -> Clipper | None:
    """Return the clipper that `identifier` means.

    Args:
        identifier: a `Clipper`, which is returned unchanged; a name, `"AutoClip"` or
            `"auto_clip"`, for a clipper with its defaults; the registered name of your own,
            `"mine>MyClipper"`; a config as `serialize` returns it; a list of these, which
            becomes a `Chain`; or None, which stays None.

    Raises:
        TypeError: `identifier` is of another type.
        ValueError: no clipper has the name; the message lists the known names.

    Reference:
        `keras.optimizers.get`.

    Example:
        >>> import keras_clip
        >>> keras_clip.clippers.get("clip_by_norm").get_config()
        {'max_norm': 1.0}
    """
    if identifier is None or isinstance(identifier, Clipper):
        return identifier
    if isinstance(identifier, str):
        return _by_name(identifier)
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    if isinstance(identifier, list | tuple):
        return _class_named("Chain")(list(identifier))  # type: ignore[call-arg]
    raise TypeError(
        "clipper must be an instance of keras_clip.Clipper, for example "
        "keras_clip.ClipByGlobalNorm(1.0), the name of one ('auto_clip'), a config, or a list of "
        f"these. Received: clipper={identifier!r}."
    )


def get_member(identifier: Any, owner: str) -> Clipper:
    """Return the clipper that `identifier` means, which is a member and cannot be None."""
    clipper = get(identifier)
    if clipper is None:
        raise TypeError(f"{owner} takes clippers, their names or configs. Received: None.")
    return clipper


def serialize(clipper: Clipper) -> dict[str, Any]:
    """Return the config of a clipper, from which `deserialize` makes an equal one."""
    config: dict[str, Any] = keras.saving.serialize_keras_object(clipper)
    return config


def deserialize(
    config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Clipper:
    """Return the clipper that `serialize` described.

    Args:
        config: dict with `class_name`, which may be a short name, and `config`.
        custom_objects: dict of names to your own classes. Defaults to the registered classes.

    Raises:
        TypeError: the config does not describe a clipper.
        ValueError: `config` has no `class_name`, or an unknown one.
    """
    if "class_name" not in config:
        raise ValueError(
            "The config of a clipper has 'class_name' and 'config', as "
            f"keras_clip.clippers.serialize returns them. Received: {dict(config)!r}."
        )
    if "registered_name" not in config and config["class_name"] not in (custom_objects or {}):
        return _class_named(config["class_name"]).from_config(dict(config.get("config", {})))
    clipper = keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
    if not isinstance(clipper, Clipper):
        raise TypeError(f"The config must describe a keras_clip.Clipper. Received: {clipper!r}.")
    return clipper


def _by_name(name: str) -> Clipper:
    cls = _class_named(name)
    needed = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
    ]
    if needed:
        raise ValueError(
            f"{cls.__name__} cannot be made from its name alone: it needs {', '.join(needed)}. "
            "Pass an instance."
        )
    return cls()


def _class_named(name: str) -> type[Clipper]:
    known = _known_classes()
    found = keras.saving.get_registered_object(name) or known.get(_key(name))
    if found is None or not issubclass(found, Clipper):
        names = sorted(cls.__name__ for cls in known.values())
        raise ValueError(
            f"No clipper is named {name!r}. Known names: {', '.join(names)}. Your own clipper has "
            "the name 'package>ClassName' that keras.saving.register_keras_serializable gave it."
        )
    return found


def _known_classes() -> dict[str, type[Clipper]]:
    registered = keras.saving.get_custom_objects()
    return {
        _key(name.removeprefix(_PACKAGE)): value
        for name, value in registered.items()
        if name.startswith(_PACKAGE) and isinstance(value, type) and issubclass(value, Clipper)
    }


def _key(name: str) -> str:
    """Return one key for the names `"ZClip"`, `"z_clip"` and `"zclip"`."""
    return name.replace("_", "").lower()
