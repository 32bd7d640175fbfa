"""Law 1 for each clipper: with numbers that are never reached, training is bit-identical."""

import keras
import pytest

import keras_clip
from keras_clip import ClippedOptimizer, Outliers
from tests.contract.test_clipper_contract import FOUND
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import assert_identical, gradient_stream, make_variables, values

NEVER = 1e30
IDLE = {
    "AdaGC": lambda: keras_clip.AdaGC(clip_ratio=NEVER, max_norm=NEVER, start_clip_steps=2),
    "AdaptiveGradientClipping": lambda: keras_clip.AdaptiveGradientClipping(NEVER),
    "AutoClip": lambda: keras_clip.AutoClip(100.0),
    "Chain": lambda: keras_clip.Chain([keras_clip.ClipByValue(NEVER), idle("ClipByNorm")]),
    "ClipByBlockRMS": lambda: keras_clip.ClipByBlockRMS(NEVER),
    "ClipByGlobalNorm": lambda: keras_clip.ClipByGlobalNorm(NEVER, norm_type=3),
    "ClipByNorm": lambda: keras_clip.ClipByNorm(NEVER),
    "ClipByValue": lambda: keras_clip.ClipByValue(NEVER),
    "ClipperMap": lambda: keras_clip.ClipperMap(idle("ClipByNorm"), {"bias": idle("AutoClip")}),
    "ObserveOnly": lambda: keras_clip.ObserveOnly("clip_by_global_norm"),
    "ZClip": lambda: keras_clip.ZClip(z_thresh=NEVER, max_grad_norm=None, warmup_steps=2),
}


def idle(name):
    return IDLE[name]()


def trained(optimizer):
    variables = make_variables()
    step = compiled_step(optimizer, variables)
    for gradients in gradient_stream(5):
        step(gradients)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return values([*variables, *inner.variables])


@pytest.fixture(scope="module")
def bare():
    return trained(keras.optimizers.Adam(0.05))


@pytest.mark.exhaustive  # the clippers compute the same on every Keras
@pytest.mark.parametrize("clipper_class", FOUND, ids=lambda c: c.__name__)
def test_idle_is_bit_identical(clipper_class, bare):
    clipper = idle(clipper_class.__name__)
    assert_identical(trained(ClippedOptimizer(keras.optimizers.Adam(0.05), clipper=clipper)), bare)


@pytest.mark.parametrize("skip_above", [2.0, Outliers(multiple=NEVER, window=2)], ids=str)
def test_idle_projection_and_skipping_are_bit_identical(bare, skip_above):
    optimizer = ClippedOptimizer(
        keras.optimizers.Adam(0.05),
        NEVER,
        max_update_ratio=NEVER,
        max_weight=NEVER,
        skip_above=skip_above,
    )
    assert_identical(trained(optimizer), bare)
