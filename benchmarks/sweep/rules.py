"""The compared limits, each with the numbers to try.

Numbers are state variables of the optimizer, so one program trains with all numbers of a rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras_clip

NO_LIMIT = math.inf
# For the norm of gradients, and for other limits of gradients whose default is 1.
NORMS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
RATIOS = (0.001, 0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Rule:
    """A rule and its settings.

    Attributes:
        limits: returns the arguments of `ClippedOptimizer`.
        settings: by a label, the number of each state variable: attributes of the clipper, or
            `max_update_ratio`.
        default: label of the setting with the rule's default.
    """

    limits: Callable[[], dict[str, Any]]
    settings: dict[str, dict[str, float]]
    default: str


def _number_settings() -> dict[str, dict[str, float]]:
    pairs = [(NO_LIMIT, NO_LIMIT)]
    pairs += [(norm, NO_LIMIT) for norm in NORMS]
    pairs += [(NO_LIMIT, ratio) for ratio in RATIOS]
    pairs += [(1.0, 0.01)]
    return {
        _pair_label(norm, ratio): {"max_norm": norm, "max_update_ratio": ratio}
        for norm, ratio in pairs
    }


def _pair_label(norm: float, ratio: float) -> str:
    parts = [f"max_norm={norm:g}"] if norm < NO_LIMIT else []
    parts += [f"max_update_ratio={ratio:g}"] if ratio < NO_LIMIT else []
    return ", ".join(parts) or "none"


def _clipper(make: Callable[[], Any], name: str, default: float, numbers: Any = NORMS) -> Rule:
    if default not in numbers:
        raise ValueError(f"The default {default} of {name} is not among {numbers}.")
    settings = {f"{name}={number:g}": {name: number} for number in numbers}
    return Rule(lambda: {"clipper": make()}, settings, f"{name}={default:g}")


def _each_variable() -> dict[str, Any]:
    # The default when the results were measured.
    limit = keras_clip.UpdateClipping(0.01, per_variable=True, minimum_rms=0.001)
    return {"max_norm": NO_LIMIT, "max_update_ratio": limit}


RULES = {
    "number": Rule(
        lambda: {"max_norm": NO_LIMIT, "max_update_ratio": NO_LIMIT},
        _number_settings(),
        "max_norm=1",
    ),
    # As for a user who sets only `max_update_ratio`: `max_norm` keeps its default.
    "default_and_ratio": Rule(
        lambda: {"max_norm": 1.0, "max_update_ratio": 0.003},
        {_pair_label(1.0, 0.003): {"max_norm": 1.0, "max_update_ratio": 0.003}},
        _pair_label(1.0, 0.003),
    ),
    "update_of_each_variable": Rule(
        _each_variable,
        {
            f"max_update_ratio={ratio:g}": {"max_update_ratio": ratio}
            for ratio in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
        },
        "max_update_ratio=0.01",
    ),
    "clip_by_norm": _clipper(keras_clip.ClipByNorm, "max_norm", 1.0),
    "clip_by_value": _clipper(
        keras_clip.ClipByValue, "high", 1.0, (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    ),
    "clip_by_block_rms": _clipper(
        keras_clip.ClipByBlockRMS, "threshold", 1.0, (1.0, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)
    ),
    "adaptive_gradient_clipping": _clipper(
        keras_clip.AdaptiveGradientClipping,
        "clipping",
        0.01,
        (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
    ),
    "auto_clip": _clipper(
        keras_clip.AutoClip, "percentile", 10.0, (90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0)
    ),
    # Learns from norms up to 1.5 times its threshold, which is never below `min_threshold`.
    "auto_clip_bounded": _clipper(
        lambda: keras_clip.AutoClip(25.0, min_threshold=1.0, max_growth=1.5), "min_threshold", 1.0
    ),
    "z_clip": _clipper(keras_clip.ZClip, "max_grad_norm", 1.0),
    "z_clip_unbounded": _clipper(
        lambda: keras_clip.ZClip(max_grad_norm=None),
        "z_thresh",
        2.5,
        (4.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5),
    ),
    "ada_gc": _clipper(keras_clip.AdaGC, "max_norm", 1.0),
    "ada_gc_unbounded": _clipper(
        lambda: keras_clip.AdaGC(max_norm=NO_LIMIT),
        "clip_ratio",
        1.04,
        (2.0, 1.5, 1.2, 1.1, 1.04, 1.02, 1.01),
    ),
}

# For a quick or a long sweep.
FEW_NUMBERS = ("none", "max_norm=1", "max_update_ratio=0.003")


def chosen_settings(name: str, is_full: bool) -> dict[str, dict[str, float]]:
    """Return the settings of a rule, or a few of them."""
    rule = RULES[name]
    if is_full:
        return rule.settings
    few = FEW_NUMBERS if name == "number" else (rule.default,)
    return {label: rule.settings[label] for label in few}


def number_of(optimizer: keras_clip.ClippedOptimizer, name: str) -> Any:
    """Return the state variable that holds a number of the rule."""
    owner = optimizer if name == "max_update_ratio" else optimizer.clipper
    return getattr(owner, name)
