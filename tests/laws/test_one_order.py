"""The steps of an update come in one order, whichever options are in use."""

import contextlib
import itertools

import keras
import pytest

from keras_clip import AdaptiveGradientClipping, ClippedOptimizer, ClipperMap
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    apply_all,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.optimizers import keras_has

AXES = {"kernel": 0, "depthwise_kernel": (0, 1)}
CLIPPERS = {
    "global norm": lambda: None,
    # These read the weights, which decay and bounds change.
    "adaptive": lambda: AdaptiveGradientClipping(0.05, axes=AXES),
    "adaptive in a map": lambda: ClipperMap(AdaptiveGradientClipping(0.05, axes=AXES)),
}
# All of these are idle: no bound is reached, and every gradient is finite.
POLICIES = ("propagate", "zero", "raise", "skip")
OPTIONS = [
    [{"nonfinite": policy} for policy in POLICIES],
    [{}, {"skip_above": 1e9, "max_consecutive_skips": 3}],
    [{}, {"max_weight": 1e30}],
    [{}, {"history_size": 0}],
]
MEMBERS = [False, True] if keras_has("MultiOptimizer") else [False]


def make(clipper, decay, steps, several, **options):
    def optimizer():
        return keras.optimizers.AdamW(
            0.3, weight_decay=decay, use_ema=True, gradient_accumulation_steps=steps
        )

    inner = optimizer()
    if several:
        mapping = keras.optimizers.OptimizerMap(inner, {"bias|scale": optimizer()})
        inner = keras.optimizers.MultiOptimizer(mapping)
    return ClippedOptimizer(inner, clipper=CLIPPERS[clipper](), **options)


def weights_of(optimizer, repeats, compiled=False):
    variables = make_variables()
    stream = [gradients for gradients in gradient_stream(3) for _ in range(repeats)]
    if compiled:
        step = compiled_step(optimizer, variables)
        for gradients in stream:
            step(gradients)
    else:
        with _op_by_op():
            apply_all(optimizer, variables, stream)
    return values(variables)


def _op_by_op():
    if keras.config.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.disable_jit()


@pytest.mark.parametrize(
    "clipper",
    [
        name if name == "global norm" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in CLIPPERS
    ],
)
@pytest.mark.parametrize("decay", [pytest.param(0.0, marks=pytest.mark.any_backend), 0.2])
def test_finite_gradients_end_alike_whatever_is_to_happen_to_others(clipper, decay):
    expected = weights_of(make(clipper, decay, None, False), 1)
    kinds = itertools.cycle(itertools.product([None, 2], MEMBERS))
    for parts in itertools.product(*OPTIONS):
        options = {name: value for part in parts for name, value in part.items()}
        if "skip_above" in options and clipper != "global norm":
            continue  # AGC has no threshold for one norm, which `skip_above` multiplies
        steps, several = next(kinds)
        found = weights_of(make(clipper, decay, steps, several, **options), steps or 1)
        assert_identical(found, expected)


@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
@pytest.mark.parametrize("several", MEMBERS)
def test_compiled_updates_too(several):
    expected = weights_of(make("adaptive", 0.2, None, several), 1, compiled=True)
    for nonfinite in ("skip", "raise"):
        optimizer = make("adaptive", 0.2, None, several, nonfinite=nonfinite, max_weight=1e30)
        assert_identical(weights_of(optimizer, 1, compiled=True), expected)
