"""Law 8: nothing of the wrapper stays on the wrapped optimizer."""

import keras
import numpy as np
import pytest

from keras_clip import ClipByValue, ClippedOptimizer
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.stores import load, saved

OPTIONS = {
    "max_norm": {"max_norm": 1e-6},
    "skip": {"max_norm": 1e-6, "nonfinite": "skip"},
    "max_weight": {"max_weight": 0.01},
    "clipper": {"clipper": "auto_clip"},
}


def adam(**options):
    return keras.optimizers.Adam(0.1, weight_decay=0.1, **options)


@pytest.mark.parametrize("accumulation", [None, 2])
@pytest.mark.parametrize("options", OPTIONS)
def test_the_inner_optimizer_goes_on_by_itself(options, accumulation):
    """Bit for bit the bare optimizer with its moments, also during an accumulation."""
    inner = adam(gradient_accumulation_steps=accumulation)
    variables = make_variables()
    apply_all(ClippedOptimizer(inner, **OPTIONS[options]), variables, gradient_stream(3))
    bare, others = adam(gradient_accumulation_steps=accumulation), make_variables()
    bare.build(others)
    for to, value in zip(
        [*others, *bare.variables], values([*variables, *inner.variables]), strict=True
    ):
        to.assign(value)
    for optimizer, weights in [(inner, variables), (bare, others)]:
        apply_all(optimizer, weights, gradient_stream(3, seed=5))
    assert_identical(values([*variables, *inner.variables]), values([*others, *bare.variables]))


def test_another_wrapper_goes_on_with_the_moments():
    inner, variables = adam(), make_variables()
    apply_all(ClippedOptimizer(inner, 1e-6), variables, gradient_stream(3))
    second = ClippedOptimizer(inner, clipper=ClipByValue(1e30))
    apply_all(second, variables, gradient_stream(3, seed=5))
    first, others = adam(), make_variables()
    apply_all(ClippedOptimizer(first, 1e-6), others, gradient_stream(3))
    apply_all(first, others, gradient_stream(3, seed=5))
    assert_identical(values(variables), values(others))
    assert int(second.iterations.numpy()) == 6


class OwnApply(keras.optimizers.SGD):
    """An optimizer that does not reach Keras's update step."""

    def apply(self, grads, trainable_variables=None):
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            variable.assign(variable - gradient)
        self._iterations.assign_add(1)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_an_optimizer_with_an_apply_of_its_own_gets_clipped_gradients(nonfinite):
    variable = keras.Variable(np.zeros(2, "float32"))
    optimizer = ClippedOptimizer(OwnApply(), 1.0, nonfinite=nonfinite, max_weight=0.7)
    optimizer.apply(as_tensors([np.array([3.0, -4.0], "float32")]), [variable])
    np.testing.assert_allclose(variable.numpy(), [-0.6, 0.7], rtol=1e-6)


def test_an_apply_of_its_own_is_called_once_an_update():
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer = ClippedOptimizer(OwnApply(gradient_accumulation_steps=2), 10.0)
    for gradient, expected in [(1.0, 0.0), (3.0, -2.0), (5.0, -2.0), (1.0, -5.0)]:
        optimizer.apply(as_tensors([np.array([gradient], "float32")]), [variable])
        np.testing.assert_allclose(variable.numpy(), [expected])


@pytest.mark.parametrize("options", [{}, *OPTIONS.values()])
def test_another_models_variables(options):
    optimizer = ClippedOptimizer("sgd", **options)
    apply_all(optimizer, make_variables(), gradient_stream(1))
    with pytest.raises(ValueError, match=r"(?s)Unknown variable.*recreate a new optimizer"):
        apply_all(optimizer, make_variables(), gradient_stream(1))


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_a_variable_listed_twice_takes_both_steps(nonfinite):
    variable = keras.Variable(np.zeros(2, "float32"))
    optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), 9.0, nonfinite=nonfinite)
    optimizer.build([variable])
    gradients = as_tensors([np.array([1.0, 0.0], "float32"), np.array([0.0, 1.0], "float32")])
    optimizer.apply(gradients, [variable, variable])
    np.testing.assert_array_equal(variable.numpy(), [-1.0, -1.0])


def test_state_of_the_same_name_is_saved_apart():
    """A threshold has the name of the wrapper's own, and a member's state that of its map's."""
    from keras_clip import Clipper, ClipperMap, Threshold

    class Mine(Clipper):
        max_weight = Threshold()

        def __init__(self, max_weight=7.0):
            self.max_weight = max_weight

        def build(self, variables):
            self.grad_norm = self.add_variable((), name="grad_norm")

        def clip(self, update):
            self.grad_norm.assign(self.grad_norm + 1.0)
            return update.gradients

    def make():
        return ClippedOptimizer("sgd", clipper=ClipperMap(Mine()), max_weight=0.5)

    one, other, variables = make(), make(), make_variables()
    apply_all(one, variables, gradient_stream(3))
    other.build(make_variables())
    load(other, saved(one))
    assert_identical(values(other.variables), values(one.variables))
    assert {"grad_norm", "clipper.max_weight"} & set(saved(one)[1]) == {"grad_norm"}
    assert "clipper.group_0.max_weight" in saved(one)[1] and "weights.max_weight" in saved(one)[1]


@pytest.mark.parametrize(
    "options", [{}, {"nonfinite": "skip"}, {"max_update_ratio": 0.01}], ids=str
)
def test_it_is_freed_with_the_last_reference(options):
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        optimizer, variables = ClippedOptimizer(adam(), **options), make_variables()
        apply_all(optimizer, variables, gradient_stream(1))
        momentum = weakref.ref(optimizer.inner_optimizer.variables[2])
        del optimizer
        assert momentum() is None
    finally:
        gc.enable()
