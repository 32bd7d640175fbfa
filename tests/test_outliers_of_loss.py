"""`Outliers(of="loss")` and `of="both"`: the loss of the step is compared, too."""

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, Outliers
from tests.reference import outliers as in_numpy
from tests.support.gradient_stream import as_tensors, assert_identical
from tests.support.mirrored import mirrored_strategy
from tests.support.stores import load, saved

BACKEND = keras.config.backend()
RULE = {"multiple": 3.0, "window": 8, "warm_up": 4}


def series(count, seed=0):
    """Return norms and losses with spikes at different places, and losses that become negative."""
    generator = np.random.default_rng(seed)
    norms = np.exp(0.4 * generator.normal(size=count))
    losses = 1.0 - 0.05 * np.arange(count) + 0.1 * generator.normal(size=count)
    norms[generator.random(count) < 0.1] *= 50.0
    losses[generator.random(count) < 0.15] += 5.0
    losses[count // 2] = np.nan
    return norms.astype("float32"), losses.astype("float32")


def make(of, inner=None, **options):
    inner = inner or keras.optimizers.SGD(0.0)
    optimizer = ClippedOptimizer(inner, skip_above=Outliers(**RULE, of=of), **options)
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    return optimizer, variable


def apply(optimizer, variable, norm, loss):
    (gradient,) = as_tensors([np.array([norm], "float32")])
    optimizer.apply([gradient], [variable], loss=keras.ops.convert_to_tensor(loss))


def compiled(optimizer, variable):
    """Return `apply` as each backend compiles it: `stateless_apply` on JAX and torch."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(
            lambda gradients, loss: optimizer.apply(gradients, [variable], loss=loss)
        )
    step = optimizer.stateless_apply
    if BACKEND == "jax":
        import jax

        step = jax.jit(step)

    def apply_statelessly(gradients, loss):
        variables = [variable, *optimizer.variables]
        (weight, *state) = [each.value for each in variables]
        (weight,), state = step(state, gradients, [weight], loss=loss)
        for each, value in zip(variables, [weight, *state], strict=True):
            each.assign(value)

    return apply_statelessly


@pytest.mark.parametrize("of", [pytest.param("loss", marks=pytest.mark.endurance), "both"])
def test_as_in_numpy(of):
    optimizer, variable = make(of)
    step = compiled(optimizer, variable)
    rule = in_numpy.Outliers(**RULE, of=of)
    norms, losses = series(60)
    for pair in zip(norms, losses, strict=True):
        gradient, loss = as_tensors([np.array(number, "float32") for number in pair])
        step([keras.ops.reshape(gradient, (1,))], loss)
    expected = [rule.skips(*pair) for pair in zip(norms, losses, strict=True)]
    assert optimizer.history["skipped"].tolist() == expected
    assert 5 < sum(expected) < 30


def test_an_accumulation_has_the_mean_of_its_losses():
    """Twelve batches; only the mean of the last three is an outlier, by one of them."""
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=3)
    optimizer, variable = make("loss", inner)
    losses = [1.0, 2.0, 3.0] * 5 + [1.0, 2.0, 30.0] + [2.0] * 3
    for loss in losses:
        apply(optimizer, variable, 1.0, loss)
    assert optimizer.history["skipped"].tolist() == [False] * 5 + [True, False]
    window = next(v for v in optimizer.variables if v.name == "losses").numpy()
    np.testing.assert_allclose(window[:6], 2.0, rtol=1e-6)


@pytest.mark.any_backend
def test_state_is_saved():
    norms, losses = series(40, seed=2)
    one, variable = make("both")
    for pair in zip(norms[:20], losses[:20], strict=True):
        apply(one, variable, *pair)
    other, same = make("both")
    load(other, saved(one))
    for optimizer, place in ((one, variable), (other, same)):
        for pair in zip(norms[20:], losses[20:], strict=True):
            apply(optimizer, place, *pair)
    assert other.history["skipped"].any()
    np.testing.assert_array_equal(other.history["skipped"], one.history["skipped"])


def spoiled():
    """Twelve batches of four; the targets of the last but one are 1e4."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(48, 4)).astype("float32")
    targets = np.sum(inputs, axis=1, keepdims=True)
    targets[40:44] = 1e4
    return inputs, targets


def fit(model, inputs, targets):
    model.fit(inputs, targets, batch_size=4, shuffle=False, verbose=0)


def linear(make_optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(make_optimizer(), loss="mse")
    return model


def of_loss():
    return ClippedOptimizer("adam", skip_above=Outliers(window=8, warm_up=4, of="loss"))


@pytest.mark.skipif(BACKEND == "jax", reason="fit on JAX shows no loss")
def test_fit_shows_the_loss():
    inputs, targets = spoiled()
    model, clean = linear(of_loss), linear(of_loss)
    fit(model, inputs, targets)
    assert np.flatnonzero(model.optimizer.history["skipped"]).tolist() == [10]
    good = np.r_[:40, 44:48]
    fit(clean, inputs[good], targets[good])
    assert_identical(model.get_weights(), clean.get_weights())


@pytest.mark.skipif(BACKEND != "jax", reason="fit on JAX shows no loss")
def test_fit_on_jax_says_what_to_do():
    with pytest.raises(ValueError, match=r"shows none to the optimizer.*RollBack"):
        fit(linear(of_loss), *spoiled())


def test_inside_a_loss_scale_it_says_what_to_do():
    def scaled():
        return keras.optimizers.LossScaleOptimizer(of_loss(), initial_scale=1.0)

    with pytest.raises(ValueError, match=r"not inside a LossScaleOptimizer"):
        fit(linear(scaled), *spoiled())


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute is TensorFlow's")
def test_replicas_decide_by_the_loss_of_the_whole_batch():
    """Only one replica has the outlier: its targets are the last two of four."""
    inputs, targets = spoiled()
    targets[40:42] = 0.0
    with mirrored_strategy().scope():
        model = linear(of_loss)
    fit(model, inputs, targets)
    assert np.flatnonzero(model.optimizer.history["skipped"]).tolist() == [10]
    alone = linear(of_loss)
    fit(alone, inputs, targets)
    windows = [
        [v.numpy() for v in each.optimizer.variables if v.name == "losses"]
        for each in (model, alone)
    ]
    np.testing.assert_allclose(*windows, rtol=1e-5)


def test_a_loss_for_another_rule_is_refused():
    optimizer, variable = make("norm")
    with pytest.raises(ValueError, match=r"loss= is for skip_above=.*of='loss'"):
        apply(optimizer, variable, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"loss= is for skip_above=.*of='loss'"):
        optimizer.stateless_apply([], [], [], loss=1.0)
    optimizer, variable = make("loss")
    with pytest.raises(ValueError, match=r"optimizer.apply\(gradients, variables, loss=loss\)"):
        optimizer.apply(as_tensors([np.ones(1, "float32")]), [variable])


@pytest.mark.parametrize("usual", [10.0, -10.0])
def test_equal_losses_are_compared_with_the_floor(usual):
    """A deviation of a tenth of the mean, three times: the limit is 3 above the loss."""
    optimizer, variable = make("loss")
    for loss in (*[usual] * 8, usual + 3.1, usual + 2.9):
        apply(optimizer, variable, 1.0, loss)
    assert optimizer.history["skipped"].tolist() == [False] * 8 + [True, False]


def test_a_nan_loss_is_no_sign_of_another_scale():
    optimizer, variable = make("loss")
    for loss in (*[1.0] * 8, *[np.nan] * 8, 50.0):
        apply(optimizer, variable, 1.0, loss)
    assert optimizer.history["skipped"].tolist() == [False] * 8 + [True] * 9


def test_losses_of_zero_have_no_scale():
    optimizer, variable = make("loss")
    for _ in range(20):
        apply(optimizer, variable, 1.0, 0.0)
    apply(optimizer, variable, 1.0, 1e-6)
    assert int(optimizer.skipped_steps.numpy()) == 0
