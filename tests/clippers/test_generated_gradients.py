"""Clippers that read weights or the past, on gradients of every rank, dtype and size."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from keras_clip import AdaGC, AdaptiveGradientClipping, AutoClip, Update, ZClip
from tests.reference import ada_gc, auto_clip, unitwise, z_clip
from tests.reference.global_norm import global_norm
from tests.support.clipping import clip_alone, gradients_of
from tests.support.generated import (
    SHAPES,
    assert_equal_to_rounding,
    float64_of,
    gradients,
    in_their_dtypes,
)

pytestmark = [
    pytest.mark.exhaustive,  # arithmetic, the same on every Keras
    # These variables have no layer on purpose, so they follow optax's rule.
    pytest.mark.filterwarnings("ignore:AdaptiveGradientClipping does not know the units"),
]

generated = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
streams = st.lists(gradients(), min_size=5, max_size=5)

# The axes of these shapes by optax's rule.
AXES = [(), (0,), (0,), (0,), (0,), (0, 1, 2), (0, 1, 2, 3)]


@generated
@given(gradients(), st.sampled_from([0.0, 1e-4, 1.0, 1e3]), st.integers(0, 2**32))
def test_adaptive_gradient_clipping(arrays, scale, seed):
    generator = np.random.default_rng(seed)
    weights = [generator.normal(size=shape) * scale for shape in SHAPES]
    tensors = in_their_dtypes(arrays)
    clipped = clip_alone(AdaptiveGradientClipping(0.1), tensors, weights)
    # The weights, rounded to the variables' dtypes, which are those of the gradients.
    held = float64_of(in_their_dtypes([weight.astype("float32") for weight in weights]))
    assume(all(np.isfinite(weight).all() for weight in held))
    expected = [
        unitwise.clip_units(gradient, weight, axes, clipping=0.1)
        for gradient, weight, axes in zip(float64_of(tensors), held, AXES, strict=True)
    ]
    assert_equal_to_rounding(float64_of(clipped), expected)


def each_step(clipper, stream):
    """Yield the inputs and the outputs of each update, in float64."""
    first = in_their_dtypes(stream[0])
    variables = [keras.Variable(np.zeros(shape), dtype="float32") for shape in SHAPES]
    clipper.build_for(variables)
    assert len(first) == len(variables)
    for step, arrays in enumerate(stream):
        tensors = in_their_dtypes(arrays)
        update = Update(tensors, variables, keras.ops.convert_to_tensor(step))
        clipped = gradients_of(clipper.clip(update))
        yield float64_of(tensors), float64_of(clipped)


def scaled(arrays, norm, threshold):
    factor = 1.0 if norm <= threshold else threshold / norm
    return [array * factor for array in arrays]


@generated
@given(streams)
def test_auto_clip(stream):
    reference = auto_clip.AutoClip(40.0, history_size=3)
    for before, after in each_step(AutoClip(40.0, history_size=3), stream):
        norm = global_norm(before)
        assert_equal_to_rounding(after, scaled(before, norm, reference.threshold(norm)))


@generated
@given(streams)
def test_z_clip(stream):
    options = {"z_thresh": 0.5, "max_grad_norm": None, "warmup_steps": 2}
    reference = z_clip.ZClip(**options)
    for before, after in each_step(ZClip(**options), stream):
        norm = global_norm(before)
        threshold = reference.threshold(norm)
        assume(reference.margin > 1e-3)
        assert_equal_to_rounding(after, scaled(before, norm, threshold))


# A moving average below the smallest float counts as unknown; see the class.
moderate = gradients(all_scales=(0.0, 1e-8, 1e-3, 1.0, 30.0, 1e8))


@generated
@given(st.lists(moderate, min_size=5, max_size=5))
def test_ada_gc(stream):
    options = {"clip_ratio": 1.5, "start_clip_steps": 2, "max_norm": 0.5, "eps": 0.0}
    reference = ada_gc.AdaGC(len(SHAPES), **options)
    for before, after in each_step(AdaGC(**options), stream):
        norms = [global_norm([gradient]) for gradient in before]
        targets = reference.norms_after(norms)
        expected = [
            scaled([gradient], norm, target)[0]
            for gradient, norm, target in zip(before, norms, targets, strict=True)
        ]
        assert_equal_to_rounding(after, expected)
