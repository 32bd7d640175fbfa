"""Clippers at random, also nested ones."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.configurations.configuration import Clip
from tests.configurations.drawing_numbers import draw_size, draw_threshold, one_of

_RUNNING = ["ClipByGlobalNorm", "AutoClip", "ZClip"]
_SINGLE = [*_RUNNING, "ClipByNorm", "ClipByValue", "ClipByBlockRMS", "AGC", "AdaGC"]
_NESTED = ["Chain", "ObserveOnly", "ClipperMap"]


def draw_clipper(
    rng: np.random.Generator,
    has_running_threshold: bool,
    depth: int = 2,
    is_inside_map: bool = False,
) -> Clip:
    """Return a clipper; if `skip_above` needs it, one with a threshold for one norm."""

    def draw_member(has_running_threshold: bool = has_running_threshold) -> Clip:
        is_inside = is_inside_map or kind == "ClipperMap"
        return draw_clipper(rng, has_running_threshold, depth - 1, is_inside)

    single = _RUNNING if has_running_threshold else _SINGLE
    nested = ["Chain", "ObserveOnly"] if has_running_threshold else _NESTED
    if depth == 0 or rng.random() < 0.6:
        return _draw_single(rng, one_of(rng, single))
    kind = one_of(rng, nested)
    if kind == "ObserveOnly":
        return Clip(kind, members=(draw_member(),))
    if kind == "Chain":
        first, rest = draw_member(), int(rng.integers(0, 3))
        return Clip(kind, members=(first, *(draw_member(False) for _ in range(rest))))
    return _draw_map(rng, draw_member, is_inside_map)


def _draw_map(
    rng: np.random.Generator, draw_member: Callable[[], Clip], is_inside_map: bool
) -> Clip:
    patterns = one_of(rng, [(".*head/.*",), (".*bias",), (".*hidden/kernel", ".*head/.*")])
    if is_inside_map:
        # A pattern has to match a variable, and the outer map passes on only some.
        patterns = (".*",)
    members: list[Clip | None] = [draw_member() for _ in patterns]
    members.append(draw_member() if rng.random() < 0.6 else None)
    if rng.random() < 0.2 and members[-1] is not None:
        members[0] = None
    return Clip("ClipperMap", members=tuple(members), patterns=patterns)


def _draw_single(rng: np.random.Generator, kind: str) -> Clip:
    arguments: dict[str, Any] = _ARGUMENTS[kind](rng)
    return Clip(kind, tuple(arguments.items()))


def _max_norm(rng: np.random.Generator) -> Any:
    if rng.random() < 0.1:
        return one_of(rng, [0.0, math.inf])
    return draw_threshold(rng, 0.1, 20.0)


def _global_norm(rng: np.random.Generator) -> dict[str, Any]:
    return {"max_norm": _max_norm(rng), "norm_type": one_of(rng, [2.0, 2.0, 1.0, 3.0, math.inf])}


def _by_norm(rng: np.random.Generator) -> dict[str, Any]:
    return {"max_norm": _max_norm(rng)}


def _by_value(rng: np.random.Generator) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {"max_value": draw_threshold(rng, 0.05, 5.0)}
    return {"low": -draw_size(rng, 0.05, 5.0), "high": draw_threshold(rng, 0.05, 5.0)}


def _block_rms(rng: np.random.Generator) -> dict[str, Any]:
    return {"threshold": draw_threshold(rng, 0.05, 5.0)}


def _agc(rng: np.random.Generator) -> dict[str, Any]:
    return {"clipping": draw_threshold(rng, 0.01, 5.0), "eps": one_of(rng, [1e-3, 0.5])}


def _auto_clip(rng: np.random.Generator) -> dict[str, Any]:
    percentile = one_of(rng, [0.0, 10.0, 25.0, 50.0, 90.0, 100.0])
    if rng.random() < 0.3:
        percentile = draw_threshold(rng, 5.0, 60.0)
    is_bounded = rng.random() < 0.5
    return {
        "percentile": percentile,
        "history_size": one_of(rng, [1, 3, 100]),
        "min_threshold": draw_threshold(rng, 0.1, 5.0) if is_bounded else 0.0,
        "max_growth": draw_threshold(rng, 1.0, 4.0) if is_bounded else None,
    }


def _z_clip(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "alpha": one_of(rng, [0.97, 0.5, 0.9]),
        "z_thresh": draw_threshold(rng, 0.3, 3.0),
        "max_grad_norm": None if rng.random() < 0.5 else draw_threshold(rng, 0.5, 20.0),
        "eps": one_of(rng, [1e-6, 0.1]),
        "warmup_steps": one_of(rng, [1, 2, 3]),
        "mode": one_of(rng, ["zscore", "zscore", "percentile"]),
        "clip_option": one_of(rng, ["adaptive_scaling", "mean"]),
        "clip_factor": one_of(rng, [1.0, 0.7]),
        "skip_update_on_spike": one_of(rng, [False, True]),
    }


def _ada_gc(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "clip_ratio": draw_threshold(rng, 0.8, 2.0),
        "beta": one_of(rng, [0.99, 0.5]),
        "eps": one_of(rng, [1e-6, 0.01]),
        "start_clip_steps": one_of(rng, [0, 1, 3]),
        "max_norm": draw_threshold(rng, 0.5, 20.0),
    }


_ARGUMENTS = {
    "ClipByGlobalNorm": _global_norm,
    "ClipByNorm": _by_norm,
    "ClipByValue": _by_value,
    "ClipByBlockRMS": _block_rms,
    "AGC": _agc,
    "AutoClip": _auto_clip,
    "ZClip": _z_clip,
    "AdaGC": _ada_gc,
}

_THRESHOLDS = {
    "max_norm",
    "max_value",
    "low",
    "high",
    "threshold",
    "clipping",
    "percentile",
    "min_threshold",
    "max_growth",
    "z_thresh",
    "max_grad_norm",
    "clip_ratio",
}


def thresholds_of(
    clipper: Clip, owner: tuple[int, ...] = ()
) -> list[tuple[tuple[int, ...] | str, str, float]]:
    """Return the thresholds that are numbers and can be assigned: owner, name, number."""
    found: list[tuple[tuple[int, ...] | str, str, float]] = [
        (owner, name, value)
        for name, value in clipper.arguments
        if name in _THRESHOLDS and isinstance(value, float)
    ]
    for place, member in enumerate(clipper.members):
        if member is not None:
            found += thresholds_of(member, (*owner, place))
    return found
