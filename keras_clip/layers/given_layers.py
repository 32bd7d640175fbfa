"""The argument `layers` of `AdaptiveGradientClipping` and `WeightClipping`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_clip._seam.sublayers import with_sublayers
from keras_clip.layers.layer_rules import units_in
from keras_clip.layers.name_rules import units_by_name
from keras_clip.layers.paths import path_of
from keras_clip.layers.units import UNKNOWN, Units
from keras_clip.types import Variable

_RECORD = {"path", "shape", "axes", "fan_in"}


class GivenLayers:
    """Layers that know the units of their variables.

    Args:
        layers: a model, a layer or a list of them; the records that `get_config` returned; or
            None.

    Raises:
        TypeError: `layers` has another type.
    """

    def __init__(self, layers: Any) -> None:
        given = list(layers) if isinstance(layers, list | tuple) else [layers]
        self._layers: list[Any] = []
        self._records: list[dict[str, Any]] = []
        if given and all(isinstance(layer, keras.Layer) for layer in given):
            self._layers = given
        elif given and all(isinstance(r, Mapping) and set(r) == _RECORD for r in given):
            self._records = [dict(record) for record in given]
        elif layers is not None:
            raise TypeError(
                f"layers must be a model, a layer, or a list of them. Received: layers={layers!r}."
            )

    def units_of(self, variables: Sequence[Variable]) -> list[Units]:
        """Return the units of each variable, from its layer if that is given, or from its name.

        The layers are released, and the config keeps their units.

        Raises:
            ValueError: layers are given, and they have none of the variables.
        """
        found = self._find(variables)
        # Keras builds an optimizer without variables while it loads a legacy file.
        if variables and (self._layers or self._records):
            self._records = _as_records(variables, found)
        self._layers = []
        return found

    def get_config(self) -> list[dict[str, Any]] | None:
        """Return the units of the layers' variables in JSON form, or None."""
        records = self._records
        if self._layers:
            variables = [v for layer in self._layers for v in layer.trainable_variables]
            variables = list({id(variable): variable for variable in variables}.values())
            records = _as_records(variables, self._find(variables))
        return records or None

    def _find(self, variables: Sequence[Variable]) -> list[Units]:
        by_layer = _units_by_layer(self._layers)
        if self._layers and variables and not any(id(v) in by_layer for v in variables):
            raise ValueError(
                "layers has none of the variables that are trained. Give the model that is "
                f"trained. The paths of these variables are: {[path_of(v) for v in variables]}."
            )
        by_name = units_by_name(variables, by_layer)
        recorded = _recorded(self._records, variables)
        return [
            next(filter(_is_known, (by_layer.get(id(v), UNKNOWN), record, named)), UNKNOWN)
            for v, record, named in zip(variables, recorded, by_name, strict=True)
        ]


def _is_known(units: Units) -> bool:
    return units != UNKNOWN


def _units_by_layer(layers: Sequence[Any]) -> dict[int, Units]:
    found: dict[int, Units] = {}
    for layer in layers:
        for part in with_sublayers(layer):
            for key, units in units_in(part).items():
                # If several layers share a variable, a Keras layer among them decides.
                if found.get(key, UNKNOWN) == UNKNOWN:
                    found[key] = units
    return found


def _as_records(variables: Sequence[Variable], found: Sequence[Units]) -> list[dict[str, Any]]:
    return [
        {
            "path": path_of(variable),
            "shape": list(variable.shape),
            "axes": None if units.axes is None else list(units.axes),
            "fan_in": units.fan_in,
        }
        for variable, units in zip(variables, found, strict=True)
    ]


def _recorded(records: Sequence[Mapping[str, Any]], variables: Sequence[Variable]) -> list[Units]:
    """Return the recorded units of each variable.

    Variables are found by their paths if the records have all of them. A loaded model has other
    paths: without the model's name, and with other numbers. Then the end of the path and the
    shape decide, if only one record fits.
    """
    for key_of in (_path_and_shape, _end_and_shape):
        by_key: dict[Any, set[Units]] = {}
        for record in records:
            axes = record["axes"]
            units = Units(None if axes is None else tuple(axes), record["fan_in"])
            by_key.setdefault(key_of(record["path"], record["shape"]), set()).add(units)
        keys = [key_of(path_of(variable), variable.shape) for variable in variables]
        if all(len(by_key.get(key, ())) == 1 for key in keys):
            break
    found = [by_key.get(key, set()) for key in keys]
    return [next(iter(units)) if len(units) == 1 else UNKNOWN for units in found]


def _path_and_shape(path: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    return path, tuple(shape)


def _end_and_shape(path: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    *_, layer, name = ["", *path.split("/")]
    return f"{re.sub(r'_[0-9]+$', '', layer)}/{name}", tuple(shape)
