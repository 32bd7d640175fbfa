"""Every optimizer of Keras, with all its options."""

from collections.abc import Callable
from typing import Any

import keras
import pytest
from packaging.version import Version

# The first Keras with an optimizer; all others are in the oldest supported Keras.
INTRODUCED = {"Muon": "3.10", "ScheduleFreeAdamW": "3.14", "MultiOptimizer": "3.14"}

_ALL: dict[str, dict[str, Any]] = {
    "SGD": {},
    "SGD momentum": {"momentum": 0.9},
    "SGD nesterov": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {},
    "Adam": {},
    "Adam amsgrad": {"amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "Nadam": {},
    "Adagrad": {},
    "Adadelta": {},
    "Adafactor": {},
    "Ftrl": {},
    "Lion": {},
    "Lamb": {},
    "Muon": {},
    "ScheduleFreeAdamW": {},
}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight decay": {"weight_decay": 0.02},
    "moving average": {"use_ema": True, "ema_momentum": 0.5},
    "moving average overwriting": {
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 2,
    },
    "accumulation": {"gradient_accumulation_steps": 3},
    "loss scale": {"loss_scale_factor": 7.0},
}


def keras_has(name: str) -> bool:
    """Whether this Keras is recent enough for the optimizer; it must be there then."""
    introduced = INTRODUCED.get(name.split()[0])
    recent = introduced is None or Version(keras.__version__) >= Version(introduced)
    assert recent == hasattr(keras.optimizers, name.split()[0])
    return recent


NAMES = [name for name in _ALL if keras_has(name)]


FEW = ["SGD momentum", "Adam", "Nadam", "Lamb"]
"""One momentum, two moments, a product of its own beside them, norms of its own."""

# A step compiles for seconds: TensorFlow and JAX share the others. torch compiles nothing.
_OTHERS = [name for name in NAMES if name not in FEW]
_SHARE = {"tensorflow": _OTHERS[0::2], "jax": _OTHERS[1::2], "torch": []}[keras.config.backend()]

FEW_AND_A_SHARE = [
    *FEW,
    *(pytest.param(name, marks=pytest.mark.exhaustive) for name in _SHARE),
    *(pytest.param(n, marks=pytest.mark.endurance) for n in _OTHERS if n not in _SHARE),
]
"""The few, and on the newest Keras each other on one backend; all in `make endurance`."""


TWO_OR_ALL = [
    name if name in ("SGD momentum", "Adam") else pytest.param(name, marks=pytest.mark.endurance)
    for name in FEW
]
"""Two of the few, and the others in `make endurance`, for a test that compiles for seconds."""

FEW_OR_ALL = [
    name if name in FEW else pytest.param(name, marks=pytest.mark.endurance) for name in NAMES
]
"""The few, and all in `make endurance`."""


def maker(name: str, **options: Any) -> Callable[[], Any]:
    """A function that makes a fresh optimizer each time."""
    arguments = {"learning_rate": 0.05, **_ALL[name], **options}
    return lambda: getattr(keras.optimizers, name.split()[0])(**arguments)


def halving_schedule() -> Any:
    """A learning rate that differs at every step."""
    return keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=4, decay_rate=0.5)
