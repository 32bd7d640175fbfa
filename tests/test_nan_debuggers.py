"""A healthy step computes no NaN and no infinity: the frameworks' debuggers stay silent."""

from contextlib import contextmanager

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.support.gradient_stream import as_tensors

backend = keras.config.backend()
pytestmark = pytest.mark.skipif(backend == "torch", reason="torch has no such debugger")


@contextmanager
def jax_debugger(name):
    import jax

    with getattr(jax, name)(True):
        yield


@contextmanager
def check_numerics():
    import tensorflow as tf

    tf.debugging.enable_check_numerics()
    try:
        yield
    finally:
        tf.debugging.disable_check_numerics()


DEBUGGERS = {
    "jax": {
        "nans": lambda: jax_debugger("debug_nans"),
        "infs": lambda: jax_debugger("debug_infs"),
    },
    "tensorflow": {"check_numerics": check_numerics},
    "torch": {},
}[backend]

CLIPPERS = {
    "global norm": lambda: keras_clip.ClipByGlobalNorm(1.0),
    "1-norm": lambda: keras_clip.ClipByGlobalNorm(1.0, norm_type=1.0),
    "3-norm": lambda: keras_clip.ClipByGlobalNorm(1.0, norm_type=3.0),
    "largest entry": lambda: keras_clip.ClipByGlobalNorm(1.0, norm_type=float("inf")),
    "zero": lambda: keras_clip.ClipByGlobalNorm(0.0),
    "norm": lambda: keras_clip.ClipByNorm(1.0),
    "value": lambda: keras_clip.ClipByValue(1.0),
    "block RMS": lambda: keras_clip.ClipByBlockRMS(1.0),
    "units": lambda: keras_clip.AdaptiveGradientClipping(0.1),
    "AdaGC": lambda: keras_clip.AdaGC(start_clip_steps=2),
    "AdaGC without eps": lambda: keras_clip.AdaGC(start_clip_steps=1, eps=0.0),
    "AutoClip": lambda: keras_clip.AutoClip(10.0, history_size=3),
    "ZClip": lambda: keras_clip.ZClip(warmup_steps=2),
    "ZClip by percentile": lambda: keras_clip.ZClip(mode="percentile", warmup_steps=2),
    "observer": lambda: keras_clip.ObserveOnly(keras_clip.ClipByGlobalNorm(1.0)),
    "chain": lambda: [keras_clip.ClipByValue(2.0), keras_clip.ClipByGlobalNorm(1.0)],
    "map": lambda: keras_clip.ClipperMap(keras_clip.ClipByNorm(1.0), {"other.*": None}),
}

# Clipped, idle, with a zero, with a tiny gradient, all zero. None is above 1.8e19: there the sum of
# squares is infinite, which starts the rescaling.
STEPS = [
    ([3.0, 4.0], [1.0]),
    ([3e-3, 4e-3], [0.0]),
    ([3.0, 0.0], [1e-30]),
    ([0.0, 0.0], [0.0]),
    ([3.0, 4.0], [1.0]),
]


@pytest.mark.parametrize("debugger", DEBUGGERS)
@pytest.mark.parametrize("clipper", CLIPPERS)
def test_nothing_is_found(clipper, debugger):
    with DEBUGGERS[debugger]():
        variables = [
            keras.Variable(np.float32([1.0, 2.0]), name="one"),
            keras.Variable(np.float32([3.0]), name="other"),
        ]
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1e-3), clipper=CLIPPERS[clipper]())
        for step in STEPS:
            optimizer.apply(as_tensors([np.float32(array) for array in step]), variables)
    assert all(np.isfinite(variable.numpy()).all() for variable in variables)
    assert np.isfinite(optimizer.history["grad_norm"]).all()


@pytest.mark.parametrize("debugger", DEBUGGERS)
def test_a_nan_is_found(debugger):
    """Each debugger finds its own kind of value: NaN or infinity."""
    bad = np.inf if debugger == "infs" else np.nan
    variable = keras.Variable(np.float32([1.0, 2.0]))
    optimizer = ClippedOptimizer("sgd", max_norm=1.0)
    gradients = as_tensors([np.float32([bad, 1.0])])
    with DEBUGGERS[debugger](), pytest.raises(Exception, match=r"(?i)invalid value|NaN|Inf"):
        optimizer.apply(gradients, [variable])


@pytest.mark.parametrize("of", ["norm", "both"])
@pytest.mark.parametrize("debugger", DEBUGGERS)
def test_outliers(debugger, of):
    """Before the first norm, in the warm-up, at a norm of 0, and at a spike."""
    rule = keras_clip.Outliers(window=3, warm_up=2, of=of)
    loss = {} if of == "norm" else {"loss": keras.ops.convert_to_tensor(0.0)}
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.1), 1.0, skip_above=rule)
    variable = keras.Variable(np.float32([1.0, 2.0]))
    optimizer.build([variable])
    with DEBUGGERS[debugger]():
        for size in (0.0, 1.0, 1.0, 0.0, 1e6, 1.0, 1.0):
            gradients = as_tensors([np.float32([3.0, 4.0]) * np.float32(size)])
            optimizer.apply(gradients, [variable], **loss)
    assert int(optimizer.skipped_steps.numpy()) == 1
