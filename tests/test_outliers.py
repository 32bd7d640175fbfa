"""`skip_above=Outliers()`: a norm far above the latest ones leaves everything as it was."""

import json

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer, Outliers, TooManySkipsError
from tests.contract.test_clipper_contract import FOUND
from tests.reference import outliers as in_numpy
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)


def skipped_of(norms, rule, dtype="float32", **options):
    """Return which updates of gradients with these norms are skipped."""
    variable = keras.Variable(np.zeros(1, dtype), dtype=dtype)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.0), skip_above=rule, **options)
    step = compiled_step(optimizer, [variable])
    for norm in norms:
        step([np.array([norm], dtype)])
    return optimizer.history["skipped"]


def expected_of(norms, multiple, window, warm_up):
    rule = in_numpy.Outliers(multiple, window, warm_up)
    return np.array([rule.skips(norm) for norm in norms])


def norms_with_spikes(count, spread=0.4, seed=0):
    generator = np.random.default_rng(seed)
    norms = np.exp(spread * generator.normal(size=count))
    norms[generator.random(count) < 0.1] *= 50.0
    return norms.astype("float32")


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e34])
def test_as_in_numpy(scale):
    norms = norms_with_spikes(60) * np.float32(scale)
    expected = expected_of(norms, 3.0, 8, 4)
    assert 3 < expected.sum() < 30
    np.testing.assert_array_equal(skipped_of(norms, Outliers(3.0, 8, 4)), expected)


@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX has no float64 by default")
def test_in_float64_as_in_numpy():
    norms = norms_with_spikes(40).astype("float64") * 1e-200
    expected = expected_of(norms, 3.0, 8, 4)
    assert expected.any()
    np.testing.assert_array_equal(skipped_of(norms, Outliers(3.0, 8, 4), "float64"), expected)


@pytest.mark.skipif(keras.config.backend() == "jax", reason="JAX has no float64 by default")
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("of", ["norm", "both"])
@pytest.mark.parametrize(
    ("of_variable", "of_gradient"),
    [("float32", "float64"), ("float64", "float32"), ("float64", "float64")],
)
def test_gradients_of_another_dtype(of_variable, of_gradient, of, is_compiled):
    rule = Outliers(window=3, warm_up=2, of=of)
    optimizer = ClippedOptimizer(keras.optimizers.SGD(0.0), skip_above=rule)
    variable = keras.Variable(np.zeros(1), dtype=of_variable)
    loss = {} if of == "norm" else {"loss": keras.ops.convert_to_tensor(1.0)}
    optimizer.build([variable])
    step = compiled_step(optimizer, [variable])
    for norm in (1.0, 1.1, 1.0, 50.0, 1.0):
        gradients = [np.array([norm], of_gradient)]
        if is_compiled:
            step(gradients, **loss)
        else:
            optimizer.apply(as_tensors(gradients), [variable], **loss)
    assert optimizer.history["skipped"].tolist() == [False, False, False, True, False]


def test_defaults_are_those_of_large_trainers():
    rule = Outliers()
    assert rule.get_config() == {"multiple": 6.0, "window": 128, "warm_up": 64, "of": "norm"}
    assert Outliers(window=3).warm_up == 2


def test_equal_norms_are_compared_with_the_floor():
    """A deviation of 0.1: the limit is exp(0.6), 1.82 times the norm."""
    found = skipped_of([*[2.0] * 6, 2.0 * 1.83], Outliers(window=4, warm_up=2))
    assert found.tolist() == [False] * 6 + [True]
    assert not skipped_of([*[2.0] * 6, 2.0 * 1.81], Outliers(window=4, warm_up=2)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_that_are_not_finite_are_skipped_from_the_start(value):
    found = skipped_of([value, 1.0, value, 1.0, 1.0, 100.0], Outliers(window=4, warm_up=2))
    assert found.tolist() == [True, False, True, False, False, True]


@pytest.mark.parametrize("usual", [9.0, 1e-9])
def test_norms_of_zero_teach_nothing_and_pass(usual):
    norms = [0.0, 0.0, usual, 0.0, usual, 0.0, 10 * usual]
    found = skipped_of(norms, Outliers(window=4, warm_up=2))
    assert found.tolist() == [False] * 6 + [True]


def test_another_scale_is_learned_after_a_window_of_outliers():
    norms = [1.0, 1.1, 0.9, 1.0, *[50.0] * 8, 5000.0]
    found = skipped_of(norms, Outliers(window=4, warm_up=2))
    np.testing.assert_array_equal(found, expected_of(norms, 6.0, 4, 2))
    assert found.tolist() == [False] * 4 + [True] * 4 + [False] * 4 + [True]


def test_a_nan_is_no_sign_of_another_scale():
    norms = [1.0, 1.1, 0.9, 1.0, *[np.nan] * 6, 50.0]
    assert skipped_of(norms, Outliers(window=4, warm_up=2)).tolist() == [False] * 4 + [True] * 7


@pytest.mark.parametrize("clipper_class", FOUND, ids=lambda found: found.__name__)
def test_with_every_clipper(clipper_class):
    from tests.laws.test_law_1_every_clipper import idle

    optimizer = ClippedOptimizer(
        "sgd", clipper=idle(clipper_class.__name__), skip_above=Outliers(window=4, warm_up=2)
    )
    variables = make_variables()
    stream = gradient_stream(4)
    apply_all(optimizer, variables, stream)
    before = values(variables)
    apply_all(optimizer, variables, [[gradient * np.float32(1e6) for gradient in stream[0]]])
    assert_identical(values(variables), before)
    assert int(optimizer.skipped_steps.numpy()) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_what_was_left_out_leaves_no_trace(compiled):
    """Weights, moments, averages, iterations, the window and its counters, bit for bit."""
    clean = gradient_stream(12)
    spikes = [[gradient * np.float32(1e6) for gradient in clean[0]]] * 2
    results = []
    for stream in ([*clean[:9], *spikes, *clean[9:]], clean):
        variables = make_variables()
        inner = keras.optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True)
        optimizer = ClippedOptimizer(inner, 5.0, skip_above=Outliers(window=4, warm_up=3))
        if compiled:
            step = compiled_step(optimizer, variables)
            for gradients in stream:
                step(gradients)
        else:
            apply_all(optimizer, variables, stream)
        own = [v for v in optimizer.variables if "log_norms" in v.name or "in_a_row" in v.name]
        assert len(own) == 4
        results.append(values([*variables, *inner.variables, *own]))
        assert int(optimizer.skipped_steps.numpy()) == len(stream) - 12
    assert_identical(*results)


def test_an_accumulation_is_one_norm():
    """Micro-batches neither teach nor count; the average of each three does."""
    stream = gradient_stream(24)
    stream[19] = [gradient * np.float32(1e6) for gradient in stream[19]]
    variables = make_variables()
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    optimizer = ClippedOptimizer(inner, 5.0, skip_above=Outliers(window=4, warm_up=4))
    step = compiled_step(optimizer, variables)
    for gradients in stream:
        step(gradients)
    assert optimizer.history["skipped"].tolist() == [False] * 6 + [True, False]
    counted = next(v for v in optimizer.variables if v.name == "log_norms_count")
    assert int(counted.numpy()) == 7


def test_too_many_in_a_row_raise():
    with pytest.raises(TooManySkipsError, match="because of a norm or loss above skip_above"):
        optimizer = ClippedOptimizer(
            "sgd", skip_above=Outliers(window=4, warm_up=2), max_consecutive_skips=1
        )
        variable = keras.Variable(np.zeros(1, "float32"))
        stream = [[np.float32([norm])] for norm in (1.0, 1.0, 1e3, 1e3)]
        apply_all(optimizer, [variable], stream)
        optimizer.raise_if_nonfinite()


def test_config():
    optimizer = ClippedOptimizer("sgd", skip_above=Outliers(5.0, 10, warm_up=3, of="loss"))
    again = ClippedOptimizer.from_config(json.loads(json.dumps(optimizer.get_config())))
    assert again.skip_above.get_config() == {
        "multiple": 5.0,
        "window": 10,
        "warm_up": 3,
        "of": "loss",
    }
    assert repr(again.skip_above) == "Outliers(multiple=5.0, window=10, warm_up=3, of='loss')"


@pytest.mark.parametrize(("first", "second"), [(Outliers(), 2.0), (2.0, Outliers())])
def test_the_kind_is_fixed_once_built(first, second):
    optimizer = ClippedOptimizer("sgd", skip_above=first)
    optimizer.build([keras.Variable([0.0])])
    with pytest.raises(TypeError, match="skip_above cannot change between a number"):
        optimizer.skip_above = second


def test_a_rule_may_serve_two_optimizers():
    """Each optimizer has its own window."""
    rule = Outliers(window=4, warm_up=2)
    assert skipped_of([1.0, 1.0, 9.0], rule).tolist() == [False, False, True]
    assert not skipped_of([9.0, 9.0, 9.0], rule).any()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"multiple": -1.0}, ValueError, "multiple must be .*Received: multiple=-1.0"),
        ({"multiple": 0.0}, ValueError, "multiple must be above 0"),
        ({"multiple": "6"}, TypeError, "multiple must be"),
        ({"window": 1}, ValueError, "window must be an int that is at least 2"),
        ({"window": 2.5}, TypeError, "window must be an int"),
        ({"warm_up": 1}, ValueError, "warm_up must be an int that is at least 2"),
        ({"of": "losses"}, ValueError, "of must be 'norm', 'loss' or 'both'.*of='losses'"),
        ({"warm_up": 200}, ValueError, "warm_up must be at most window.*warm_up=200"),
    ],
)
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        Outliers(**arguments)
