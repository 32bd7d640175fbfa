"""A clipper for each group of variables, chosen by their paths."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_clip.clippers.clipped import as_clipped
from keras_clip.clippers.clipper import Clipper
from keras_clip.clippers.registry import deserialize, get, serialize
from keras_clip.clippers.update import Update
from keras_clip.layers.paths import PathPatterns
from keras_clip.types import Gradient, Variable

_DEFAULT = "default_clipper"


@keras.saving.register_keras_serializable(package="keras_clip")
class ClipperMap(Clipper):
    """Clip groups of variables, each by its own clipper and its own norm.

    `clipped_group = clip_group(g_group)`

    A variable belongs to the group whose pattern equals its path. Otherwise it belongs to the
    group whose pattern, a regular expression, matches its whole path (`re.fullmatch`). Otherwise
    it belongs to the default group. For example, `"encoder/.*"` matches the variable with the
    path `"encoder/dense/kernel"`. The paths in a `keras.Sequential` begin with the model's name:
    use `".*dense/kernel"`.

    Args:
        default_clipper: clipper of all variables that no pattern matches: an instance, a
            name, a config or a list; None, the default, leaves them unclipped.
        clipper_map: dict of patterns to clippers in the same forms. None as a clipper leaves
            the group unclipped.

    Raises:
        TypeError: `clipper_map` is not a dict, a pattern is not a str, or a value is not a
            clipper.
        ValueError: no clipper is given, one instance is given twice, or a pattern is not a
            regular expression. When the optimizer is built: several patterns match one
            variable. At the first step: a pattern matches no variable; the message lists the
            paths.

    Reference:
        The conventions of `keras.optimizers.OptimizerMap`, which accepts a pattern that matches
        no variable.

    Example:
        >>> import keras_clip
        >>> groups = keras_clip.ClipperMap("clip_by_global_norm", {".*/embeddings": None})
        >>> groups["head/.*"] = keras_clip.ClipByGlobalNorm(0.1)
        >>> optimizer = keras_clip.ClippedOptimizer("adam", clipper=groups)
        >>> optimizer.clipper["head/.*"].max_norm
        0.1
    """

    def __init__(
        self, default_clipper: Any = None, clipper_map: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(clipper_map, Mapping | None):
            raise TypeError(
                "clipper_map must be a dict of path patterns to clippers. "
                f"Received: clipper_map={clipper_map!r}."
            )
        self._map: dict[str, Clipper | None] = {}
        self._default = get(default_clipper)
        self._patterns = PathPatterns("clipper_map")
        self._built = False
        self._grad_norms: dict[str, Variable] = {}
        for pattern, clipper in (clipper_map or {}).items():
            self[pattern] = clipper

    def __setitem__(self, pattern: str, clipper: Any) -> None:
        """Add a group, before the map is given to an optimizer."""
        if pattern in self._map:
            raise ValueError(f"{pattern!r} has the clipper {self._map[pattern]!r} already.")
        if self._owner is not None or self._built:
            raise ValueError(
                f"The group {pattern!r} comes too late: an optimizer has this ClipperMap "
                "already. Add groups before."
            )
        clipper = get(clipper)
        if clipper is not None and any(clipper is member for member in self.members):
            raise ValueError(
                f"One {type(clipper).__name__} cannot serve two groups, as each has its own "
                f"state. Make a new one for {pattern!r}."
            )
        self._patterns.add(pattern)
        self._map[pattern] = clipper

    def __getitem__(self, pattern: str) -> Clipper | None:
        """Return the clipper of a group."""
        return self._map[pattern]

    @property
    def default_clipper(self) -> Clipper | None:
        """The clipper of the variables that no pattern matches."""
        return self._default

    @property
    def grad_norms(self) -> dict[str, Variable]:
        """The norm before clipping of each group, by its pattern: scalar variables on the device.

        Groups without variables are left out. The default group has the key
        `"default_clipper"`. Empty before the optimizer is built.
        """
        return dict(self._grad_norms)

    @property
    def members(self) -> Sequence[Clipper]:
        """The clippers of the groups, without None."""
        return [member for member in self._groups().values() if member is not None]

    def _groups(self) -> dict[str, Clipper | None]:
        return {**self._map, _DEFAULT: self._default}

    def _group_of(self, variable: Variable) -> str:
        return self._patterns.of(variable) or _DEFAULT

    def claim(self, owner: str) -> None:
        """Store the optimizer that it belongs to; raise if no group has a clipper."""
        if not self.members:
            raise ValueError(
                "This ClipperMap has no clipper, so that nothing would be clipped. Give it a "
                "default_clipper or a clipper_map."
            )
        super().claim(owner)

    def build(self, variables: Sequence[Variable]) -> None:
        """Assign each variable its group, and build the clippers."""
        self._patterns.build(variables)
        for index, (group, member) in enumerate(self._groups().items()):
            own = [v for v in variables if self._group_of(v) == group]
            if own:
                norm = self.add_variable((), name=f"group_{index}_grad_norm")
                self._grad_norms[group] = norm
            if member is not None:
                self.build_member(member, f"group_{index}", own)
        self._built = True

    def clip(self, update: Update) -> list[Gradient]:
        """Clip each group by itself."""
        self._patterns.check_all_used()
        clipped = list(update.gradients)
        groups = [self._group_of(variable) for variable in update.variables]
        for group, member in self._groups().items():
            positions = [p for p, own in enumerate(groups) if own == group]
            if not positions:
                continue
            part = update.subset(positions)
            self._grad_norms[group].assign(part.global_norm)
            result = as_clipped(part.gradients if member is None else member.clip(part))
            for position, gradient in zip(positions, result.gradients, strict=True):
                clipped[position] = gradient
        return clipped

    def get_config(self) -> dict[str, Any]:
        """Return the configs of the clippers, by group."""
        return {
            "default_clipper": _serialized(self._default),
            "clipper_map": {pattern: _serialized(c) for pattern, c in self._map.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the map that `get_config` described."""
        return cls(
            _deserialized(config["default_clipper"]),
            {pattern: _deserialized(c) for pattern, c in config["clipper_map"].items()},
        )


def _serialized(clipper: Clipper | None) -> Any:
    return None if clipper is None else serialize(clipper)


def _deserialized(config: Any) -> Clipper | None:
    return None if config is None else deserialize(config)
