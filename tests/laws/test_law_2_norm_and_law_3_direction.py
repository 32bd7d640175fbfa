"""Laws 2 and 3: clipped gradients have norm min(norm, max_norm) and the same direction."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_close,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.optimizers import NAMES, maker


def applied(gradients, max_norm, dtype="float32"):
    """Return the gradients that SGD subtracts at learning rate 1, and the norm before."""
    variables = [keras.Variable(np.zeros(np.shape(g)), dtype=dtype) for g in gradients]
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), max_norm)
    optimizer.apply(as_tensors(gradients), variables)
    return [-value for value in values(variables)], float(optimizer.grad_norm.numpy())


@pytest.mark.parametrize("magnitude", [1e-35, 1e-20, 1e-3, 1.0, 1e3, 1e19, 1e30, 1e38])
def test_any_magnitude(magnitude):
    gradients = [g * np.float32(magnitude / 10) for g in gradient_stream(1)[0]]
    step, norm = applied(gradients, 1.0)
    assert norm == pytest.approx(reference.global_norm(gradients), rel=1e-6)
    assert_close(step, reference.clip_by_global_norm(gradients, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_equals_global_clipnorm_on_dense_float32(name):
    """On one device and at ordinary magnitudes Keras's own clip is right, and is the reference."""
    ours, builtin = make_variables(), make_variables()
    stream = gradient_stream(6)
    norms = [reference.global_norm(gradients) for gradients in stream]
    assert sum(norm > 2.0 for norm in norms) >= 3
    apply_all(ClippedOptimizer(maker(name)(), 2.0), ours, stream)
    apply_all(maker(name, global_clipnorm=2.0)(), builtin, stream)
    assert_close(values(ours), values(builtin), rtol=1e-6)


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 2.0, 1e9])
def test_equals_float64_sgd(max_norm):
    variables = make_variables()
    expected = [value.astype(np.float64) for value in values(variables)]
    stream = gradient_stream(8)
    apply_all(ClippedOptimizer(keras.optimizers.SGD(0.1), max_norm), variables, stream)
    for gradients in stream:
        clipped = reference.clip_by_global_norm(gradients, max_norm)
        expected = [w - 0.1 * g for w, g in zip(expected, clipped, strict=True)]
    assert_close(values(variables), expected, rtol=2e-6)


def test_missing_gradients_are_left_out():
    variables = make_variables()
    start = values(variables)
    gradients = gradient_stream(1)[0]
    gradients[1] = None
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), 0.5)
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        apply_all(optimizer, variables, [gradients])
    step = [was - now for was, now in zip(start, values(variables), strict=True)]
    assert not step[1].any()
    assert float(optimizer.grad_norm.numpy()) == pytest.approx(
        reference.global_norm(gradients), rel=1e-6
    )
    assert reference.global_norm(step) == pytest.approx(0.5, rel=1e-5)


def test_direction_is_kept():
    gradients = gradient_stream(1)[0]
    step, norm = applied(gradients, 1e-3)
    assert_close([s * norm / 1e-3 for s in step], gradients, rtol=2e-6)


def test_a_not_finite_gradient_shows_in_the_step():
    gradients = gradient_stream(1)[0]
    gradients[0][0, 0] = np.nan
    step, norm = applied(gradients, 1.0)
    assert np.isnan(norm)
    assert all(np.isnan(s).all() for s in step)
