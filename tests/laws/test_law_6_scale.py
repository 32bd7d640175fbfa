"""Law 6: loss scaling changes only the rounding; thresholds are in true units."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.gradient_stream import (
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model


def scaled(stream, factor):
    return [[g * np.float32(factor) for g in gradients] for gradients in stream]


def test_fixed_loss_scale_inside():
    plain, with_scale = make_variables(), make_variables()
    stream = gradient_stream(4)
    apply_all(ClippedOptimizer(keras.optimizers.Adam(0.1), 0.5), plain, stream)
    optimizer = ClippedOptimizer(keras.optimizers.Adam(0.1, loss_scale_factor=1024.0), 0.5)
    apply_all(optimizer, with_scale, scaled(stream, 1024.0))
    assert_identical(values(with_scale), values(plain))
    norm = reference.global_norm(stream[-1])
    assert float(optimizer.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)


def test_scale_loss_is_the_inner_one():
    optimizer = ClippedOptimizer(keras.optimizers.SGD(loss_scale_factor=8.0))
    assert float(optimizer.scale_loss(keras.ops.convert_to_tensor(2.0))) == 16.0
    assert float(ClippedOptimizer("sgd").scale_loss(keras.ops.convert_to_tensor(2.0))) == 2.0


def test_loss_scale_optimizer_outside():
    plain, with_scale = make_variables(), make_variables()
    stream = gradient_stream(4)
    apply_all(ClippedOptimizer(keras.optimizers.Adam(0.1), 0.5), plain, stream)
    clipped = ClippedOptimizer(keras.optimizers.Adam(0.1), 0.5)
    outer = keras.optimizers.LossScaleOptimizer(clipped, initial_scale=1024.0)
    outer.build(with_scale)
    for gradients in scaled(stream, 1024.0):
        if keras.config.backend() == "jax":
            stateless_step(outer, with_scale, gradients)
        else:
            apply_all(outer, with_scale, [gradients])
    assert_close(values(with_scale), values(plain))
    assert float(clipped.grad_norm.numpy()) == pytest.approx(
        reference.global_norm(stream[-1]), rel=1e-6
    )


def stateless_step(optimizer, variables, gradients):
    """Keras's LossScaleOptimizer runs on JAX through `stateless_apply` only."""
    state = [variable.value for variable in optimizer.variables]
    weights = [variable.value for variable in variables]
    weights, state = optimizer.stateless_apply(state, gradients, weights)
    for variable, value in zip([*variables, *optimizer.variables], [*weights, *state], strict=True):
        variable.assign(value)


def test_wrapping_in_a_loss_scale_optimizer_clears_the_inner_scale():
    inner = keras.optimizers.SGD(loss_scale_factor=8.0)
    keras.optimizers.LossScaleOptimizer(ClippedOptimizer(inner))
    expected = None if hasattr(keras.optimizers, "Muon") else 8.0  # Keras clears it from 3.10 on
    assert inner.loss_scale_factor == expected


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_fit(policy):
    keras.config.set_dtype_policy(policy)
    model = make_model(ClippedOptimizer(keras.optimizers.Adam(0.05), max_norm=0.5))
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    history = fit(model, epochs=6)
    clipped = model.optimizer.inner_optimizer if is_scaled else model.optimizer
    assert history.history["loss"][-1] < history.history["loss"][0]
    # The norm of true gradients; scaled by 2 ** 15 it would be in the tens of thousands.
    assert 0 < float(clipped.grad_norm.numpy()) < 1000


def test_non_finite_gradients_are_skipped_by_the_loss_scale_optimizer():
    clipped = ClippedOptimizer(keras.optimizers.SGD(0.1), 0.5)
    outer = keras.optimizers.LossScaleOptimizer(clipped, initial_scale=4.0)
    variables = make_variables()
    outer.build(variables)
    start = values(variables)
    gradients = gradient_stream(1)[0]
    gradients[0][0, 0] = np.inf
    if keras.config.backend() == "jax":
        stateless_step(outer, variables, gradients)
    else:
        apply_all(outer, variables, [gradients])
    assert_identical(values(variables), start)
    assert float(clipped.grad_norm.numpy()) == 0.0
    assert float(outer.dynamic_scale.numpy()) == 2.0


def test_float64_variables():
    if keras.config.backend() == "jax":
        import jax

        # It is off by default, and cannot change during a process.
        assert not jax.config.jax_enable_x64
        return
    keras.config.set_floatx("float64")
    variables = make_variables(dtype="float64")
    # A learning rate that float32 holds exactly: Keras rounds others to it on torch.
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.125), 0.1)
    stream = gradient_stream(3, dtype="float64")
    expected = values(variables)
    apply_all(optimizer, variables, stream)
    for gradients in stream:
        clipped = reference.clip_by_global_norm(gradients, 0.1)
        expected = [w - 0.125 * g for w, g in zip(expected, clipped, strict=True)]
    assert_close(values(variables), expected, rtol=1e-13)
    assert optimizer.grad_norm.dtype == "float64"
