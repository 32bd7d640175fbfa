"""Law 9: a wrong argument raises at construction; the error has the given and accepted values."""

import math

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClipByGlobalNorm, ClippedOptimizer
from tests.support.gradient_stream import apply_all, gradient_stream, make_variables

BAD_VALUES = [-1.0, -1e-9, -math.inf, math.nan, np.float32("nan")]
NO_NUMBERS = ["1.0", True, [1.0], {"a": 1}, 1j, object()]


@pytest.mark.parametrize("max_norm", BAD_VALUES, ids=repr)
@pytest.mark.parametrize("make", [ClipByGlobalNorm, lambda m: ClippedOptimizer("sgd", m)])
def test_threshold_below_zero_or_nan(make, max_norm):
    with pytest.raises(ValueError, match="at least 0.*Received: max_norm="):
        make(max_norm)


@pytest.mark.parametrize("max_norm", NO_NUMBERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("make", [ClipByGlobalNorm, lambda m: ClippedOptimizer("sgd", m)])
def test_threshold_that_is_no_number(make, max_norm):
    with pytest.raises(TypeError, match="LearningRateSchedule, or a callable.*Received: max_norm="):
        make(max_norm)


@pytest.mark.parametrize("max_norm", [0, 3, 0.5, np.float32(0.5), np.int64(2), math.inf])
def test_numbers_of_python_and_numpy_are_accepted(max_norm):
    assert ClippedOptimizer("sgd", max_norm).max_norm == float(max_norm)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(("value", "error"), [(-1.0, ValueError), ("a", TypeError)])
def test_assignment_is_checked_too(built, value, error):
    optimizer = ClippedOptimizer("sgd")
    if built:
        optimizer.build(make_variables())
    with pytest.raises(error, match="Received: max_norm="):
        optimizer.max_norm = value
    assert float(np.array(optimizer.max_norm)) == 1.0


def test_a_number_cannot_become_a_schedule_once_steps_are_compiled():
    decay = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    for first, second in ((1.0, decay), (decay, 1.0)):
        optimizer = ClippedOptimizer("sgd", 2.0)
        optimizer.max_norm = first  # before the build, every value is accepted
        optimizer.build(make_variables())
        with pytest.raises(TypeError, match="once the optimizer is built"):
            optimizer.max_norm = second


def test_both_max_norm_and_clipper():
    with pytest.raises(ValueError, match=r"only one of the two.*max_norm=1.0, clipper="):
        ClippedOptimizer("sgd", 1.0, clipper=ClipByGlobalNorm())


@pytest.mark.parametrize("clipper", [ClipByGlobalNorm, object(), 1.0])
def test_clipper_of_another_type(clipper):
    with pytest.raises(TypeError, match="clipper must be an instance of keras_clip.Clipper"):
        ClippedOptimizer("sgd", clipper=clipper)


@pytest.mark.parametrize("inner", [None, 3, keras.optimizers.SGD, object()])
def test_what_is_no_optimizer(inner):
    with pytest.raises(TypeError, match="inner_optimizer must be an instance.*Received: inner_opt"):
        ClippedOptimizer(inner)


def test_unknown_name():
    with pytest.raises(ValueError, match="sgdd"):
        ClippedOptimizer("sgdd")


@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0])
def test_inner_optimizer_that_clips_by_itself(argument, value):
    """Keras accepts -1.0 and ignores it, which no user wants."""
    with pytest.raises(ValueError, match=rf"clips by itself: {argument}={value}.*max_norm"):
        ClippedOptimizer(keras.optimizers.SGD(**{argument: value}))


@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_keras_clips_cannot_be_set_later(argument):
    optimizer = ClippedOptimizer("sgd")
    with pytest.raises(ValueError, match=f"{argument}=1.0 would have Keras clip as well"):
        setattr(optimizer, argument, 1.0)
    assert getattr(optimizer, argument) is None


def test_loss_scale_optimizer_inside():
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match=r"LossScaleOptimizer\(ClippedOptimizer\(inner\)\)"):
        ClippedOptimizer(inner)


def test_clipped_optimizer_inside():
    with pytest.raises(ValueError, match="inner_optimizer='first' is a ClippedOptimizer"):
        ClippedOptimizer(ClippedOptimizer("sgd", name="first"))


def test_a_refused_wrapper_leaves_the_inner_optimizer_free():
    inner = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="max_norm"):
        ClippedOptimizer(inner, -1.0)
    ClippedOptimizer(inner, 1.0)


def test_grad_norm_before_there_is_one():
    with pytest.raises(AttributeError, match="once the optimizer is built"):
        _ = ClippedOptimizer("sgd").grad_norm


def test_max_norm_of_a_clipper_that_has_none():
    class NoThreshold(keras_clip.Clipper):
        def clip(self, update):
            return update.gradients

    optimizer = ClippedOptimizer("sgd", clipper=NoThreshold())
    with pytest.raises(AttributeError, match="NoThreshold has no max_norm to assign 0.5 to"):
        optimizer.max_norm = 0.5
    with pytest.raises(AttributeError, match="max_norm"):
        _ = optimizer.max_norm


def test_apply_without_variables_before_the_first_build():
    with pytest.raises(ValueError, match=r"Call optimizer.build\(trainable_variables\) first"):
        ClippedOptimizer("sgd").apply([keras.ops.ones(3)])


@pytest.mark.parametrize("name", ["inner_optimizer", "clipper"])
def test_parts_cannot_be_exchanged(name):
    optimizer = ClippedOptimizer("sgd")
    part = getattr(optimizer, name)
    with pytest.raises(AttributeError, match=f"{name} is fixed when"):
        setattr(optimizer, name, ClipByGlobalNorm(2.0))
    assert getattr(optimizer, name) is part


@pytest.mark.parametrize("name", ["a.dot", "twice"])
def test_names_of_state_must_differ(name):
    class Clashing(keras_clip.Clipper):
        def build(self, variables):
            self.add_variable((), name="twice")
            self.add_variable((), name=name)

        def clip(self, update):
            return update.gradients

    with pytest.raises(ValueError, match=f"no dot and be new to Clashing.*Received: name='{name}'"):
        ClippedOptimizer("sgd", clipper=Clashing()).build(make_variables())


def test_a_failed_build_can_be_tried_again():
    class FailsOnce(keras_clip.Clipper):
        calls = 0
        fail = True

        def build(self, variables):
            if type(self).fail:
                type(self).fail = False
                raise RuntimeError("mend me")

        def clip(self, update):
            type(self).calls += 1
            return update.gradients

    optimizer, variables = ClippedOptimizer("sgd", clipper=FailsOnce()), make_variables()
    with pytest.raises(RuntimeError, match="mend me"):
        optimizer.build(variables)
    apply_all(optimizer, variables, gradient_stream(1))
    assert FailsOnce.calls == 1
