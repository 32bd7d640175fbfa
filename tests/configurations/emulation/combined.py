"""The clippers that combine others."""

import re
from typing import Any

import numpy as np

from tests.configurations.configuration import PATHS, Clip
from tests.configurations.emulation import adaptive, stateless
from tests.configurations.emulation.numbers import norm
from tests.configurations.emulation.stateless import Clipper
from tests.configurations.emulation.update import Arrays, Update


class Chain(Clipper):
    """One after another."""

    def clip(self, update: Update) -> Arrays:
        for member in self.members:
            self._latest = update
            update = update.having(member.clip(update))
        return update.gradients

    def running(self, update: Update) -> tuple[float, float]:
        result: tuple[float, float] = self.members[0].running(update)
        return result

    def used(self, update: Update) -> float:
        return float(self.members[-1].used(self._latest))


class ObserveOnly(Clipper):
    """Lets gradients pass and counts the changes that the clipper would have made."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.updates = self.clipped_updates = 0
        self.clipped_norm = 0.0

    def clip(self, update: Update) -> Arrays:
        clipped = self.members[0].clip(update)
        pairs = zip(update.gradients, clipped, strict=True)
        self.updates += 1
        self.clipped_updates += any(np.any(one != other) for one, other in pairs)
        self.clipped_norm = norm(clipped)
        return update.gradients

    def running(self, update: Update) -> tuple[float, float]:
        result: tuple[float, float] = self.members[0].running(update)
        return result

    def used(self, update: Update) -> float:
        return float(self.members[0].used(update))


class ClipperMap(Clipper):
    """A clipper for each group of variables; the last member is the default."""

    patterns: tuple[str, ...]

    def clip(self, update: Update) -> Arrays:
        clipped = list(update.gradients)
        groups = [self._group(PATHS[place]) for place in update.places]
        for group, member in enumerate(self.members):
            chosen = [index for index, own in enumerate(groups) if own == group]
            if chosen and member is not None:
                changed = member.clip(update.subset(chosen))
                for index, gradient in zip(chosen, changed, strict=True):
                    clipped[index] = gradient
        return clipped

    def _group(self, path: str) -> int:
        for index, pattern in enumerate(self.patterns):
            if re.fullmatch(pattern, path):
                return index
        return len(self.patterns)


_KINDS: dict[str, type[Clipper]] = {
    cls.__name__: cls
    for cls in (
        stateless.ClipByGlobalNorm,
        stateless.ClipByNorm,
        stateless.ClipByBlockRMS,
        stateless.ClipByValue,
        stateless.AGC,
        adaptive.AutoClip,
        adaptive.ZClip,
        adaptive.AdaGC,
        Chain,
        ObserveOnly,
        ClipperMap,
    )
}


def make(clip: Clip | None) -> Any:
    """The clipper of the emulation."""
    if clip is None:
        return None
    clipper = _KINDS[clip.kind](**dict(clip.arguments))
    clipper.members = tuple(make(member) for member in clip.members)
    if clip.patterns:
        clipper.patterns = clip.patterns  # type: ignore[attr-defined]
    return clipper


def member_at(clipper: Any, owner: tuple[int, ...]) -> Any:
    """Return the member at a path of places."""
    for place in owner:
        clipper = clipper.members[place]
    return clipper


def observed(clipper: Any) -> list[tuple[float, ...]]:
    """The numbers of every `ObserveOnly`, outermost first."""
    if clipper is None:
        return []
    own = []
    if isinstance(clipper, ObserveOnly):
        own = [(clipper.updates, clipper.clipped_updates, clipper.clipped_norm)]
    return own + [numbers for member in clipper.members for numbers in observed(member)]
