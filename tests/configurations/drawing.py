"""Options at random: a number gives the same configuration on every machine."""

from dataclasses import replace
from typing import Any

import numpy as np

from tests.configurations.configuration import Assignment, Clip, Configuration, Decay, Learned, Rule
from tests.configurations.drawing_clippers import draw_clipper, thresholds_of
from tests.configurations.drawing_numbers import draw_size, draw_threshold, maybe, one_of
from tests.configurations.emulation.run import smallest_margin

SEED = 20251126

# In float32, a norm this close to a decision may fall on its other side.
_CLOSE = 1e-4

_RULES = [
    Rule("SGD"),
    Rule("SGD", (("momentum", 0.9),)),
    Rule("SGD", (("momentum", 0.8), ("nesterov", True))),
    Rule("Adam"),
    Rule("Adam", (("amsgrad", True), ("beta_2", 0.9))),
    Rule("AdamW"),
    Rule("RMSprop"),
    Rule("RMSprop", (("momentum", 0.5),)),
    Rule("RMSprop", (("centered", True), ("rho", 0.5))),
    Rule("Adagrad"),
    Rule("Lion"),
]


def draw(number: int) -> Configuration:
    """Return the configuration of a number, in which no norm comes close to a decision."""
    attempt = 0
    while True:
        generator = np.random.default_rng([SEED, number, attempt])
        configuration = _draw(generator, (SEED, number, attempt))
        if smallest_margin(configuration) > _CLOSE:
            return configuration
        attempt += 1


def _draw(rng: np.random.Generator, seed: tuple[int, int, int]) -> Configuration:
    nonfinite = one_of(rng, ["propagate", "skip", "zero", "raise"])
    has_skip_above = rng.random() < 0.3
    accumulation = one_of(rng, [None, None, None, 2, 3])
    calls = int(rng.integers(5, 9)) * (accumulation or 1) + int(rng.integers(0, 2))
    clipper = draw_clipper(rng, has_skip_above)
    skip_above = draw_threshold(rng, 1.0, 20.0, lowest=1.0) if has_skip_above else None
    max_weight = _draw_max_weight(rng)
    max_update_ratio = _draw_max_update_ratio(rng)
    limits = {"max_weight": max_weight, "max_update_ratio": max_update_ratio}
    may_skip = has_skip_above or nonfinite == "skip"
    configuration = Configuration(
        seed=seed,
        mode=one_of(rng, ["eager", "compiled", "xla"]),
        rule=one_of(rng, _RULES),
        learning_rate=_draw_learning_rate(rng),
        weight_decay=maybe(rng, 0.4, lambda: draw_size(rng, 0.001, 0.5)),
        ema=maybe(rng, 0.25, lambda: (one_of(rng, [0.5, 0.9]), one_of(rng, [None, 2, 3]))),
        accumulation=accumulation,
        loss_scale=one_of(rng, [None, None, None, 8.0, 1000.0, 0.3]),
        clipper=clipper,
        nonfinite=nonfinite,
        max_consecutive_skips=one_of(rng, [None, 1, 2]) if may_skip else None,
        skip_above=skip_above,
        max_weight=max_weight,
        max_update_ratio=max_update_ratio,
        history_size=one_of(rng, [0, 3, 100, 100]),
        missing=one_of(rng, [None, None, None, 0, 1, 2, 3]),
        constraint=rng.random() < 0.2,
        batches=_within_float32(
            _draw_batches(rng, calls, 0.12 if nonfinite == "propagate" else 0.3), clipper
        ),
        assignments=_draw_assignments(rng, calls, clipper, skip_above, limits),
        resume=maybe(rng, 0.5, lambda: _draw_resume(rng, calls)),
    )
    # Works with every clipper, so it is drawn where no multiple of a threshold was.
    if has_skip_above or rng.random() < 0.6:
        return configuration
    return replace(configuration, skip_above=_draw_outliers(rng))


def _draw_outliers(rng: np.random.Generator) -> Learned:
    window = int(rng.integers(2, 6))
    warm_up = int(rng.integers(2, window + 1))
    of = one_of(rng, ["norm", "norm", "loss", "both"])
    return Learned(draw_size(rng, 0.5, 6.0), window, warm_up, of)


def _draw_learning_rate(rng: np.random.Generator) -> float | Decay:
    rate = draw_size(rng, 0.001, 0.1)
    return Decay(rate, int(rng.integers(1, 9)), 0.5) if rng.random() < 0.3 else rate


def _draw_max_weight(rng: np.random.Generator) -> Any:
    kind = one_of(rng, ["none", "none", "none", "all", "fan_in", "groups"])
    if kind == "none":
        return None
    bound = draw_threshold(rng, 0.05, 2.0)
    if kind == "groups":
        return ("groups", bound, draw_threshold(rng, 0.05, 2.0) if rng.random() < 0.5 else None)
    return (kind, bound)


def _draw_max_update_ratio(rng: np.random.Generator) -> Any:
    kind = one_of(rng, ["none", "none", "observed", "all", "each", "groups"])
    if kind == "none":
        return None
    if kind == "observed":
        return ("all", float("inf"))
    ratio = draw_threshold(rng, 0.001, 1.0)
    if kind == "groups":
        return ("groups", ratio, draw_threshold(rng, 0.001, 1.0) if rng.random() < 0.5 else None)
    return (kind, ratio)


def _within_float32(batches: tuple[str, ...], clipper: Clip) -> tuple[str, ...]:
    """For AdaGC, replace gradients that its warm-up divides inexactly: docs/guarantees.md."""
    if "AdaGC" not in repr(clipper):
        return batches
    return tuple("1e30" if batch == "3e38" else batch for batch in batches)


def _draw_batches(rng: np.random.Generator, calls: int, share: float) -> tuple[str, ...]:
    unusual = ["nan", "inf", "zero", "1e30", "1e-30", "nan", "inf", "zero", "1e30", "1e-30", "3e38"]
    return tuple(one_of(rng, unusual) if rng.random() < share else "usual" for _ in range(calls))


def _draw_resume(rng: np.random.Generator, calls: int) -> tuple[int, str]:
    return int(rng.integers(1, calls)), one_of(rng, ["model file", "weights file"])


def _draw_assignments(
    rng: np.random.Generator, calls: int, clipper: Clip, skip_above: Any, limits: dict[str, Any]
) -> tuple[Assignment, ...]:
    numbers = thresholds_of(clipper)
    if isinstance(skip_above, float):
        numbers.append(("skip_above", "skip_above", skip_above))
    for name, given in limits.items():
        if given is not None and isinstance(given[1], float):
            numbers.append((name, name, given[1]))
    if not numbers or rng.random() < 0.5:
        return ()
    made = []
    for call in sorted(rng.integers(1, calls, size=int(rng.integers(1, 3)))):
        owner, name, value = numbers[int(rng.integers(len(numbers)))]
        made.append(Assignment(int(call), owner, name, _another(rng, name, value)))
    return tuple(made)


def _another(rng: np.random.Generator, name: str, value: float) -> float:
    if not np.isfinite(value) or value == 0:
        return draw_size(rng, 0.1, 10.0)
    value = float(value * draw_size(rng, 0.3, 3.0))
    if name == "percentile":
        return min(value, 100.0)
    return max(value, 1.0) if name in ("skip_above", "max_growth") else value
