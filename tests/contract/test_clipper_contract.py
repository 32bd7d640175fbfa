"""The promises of every clipper of keras_clip and of a user's; the tests find the clippers."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.clipping import gradients_of
from tests.support.compiled_step import compiled_step
from tests.support.family import whole_family
from tests.support.gradient_stream import (
    SHAPES,
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model
from tests.support.stateful_clipper import RunningMean, TellingMean
from tests.support.stores import load, saved

FOUND = [
    candidate
    for candidate in vars(keras_clip.clippers).values()
    if isinstance(candidate, type)
    and issubclass(candidate, keras_clip.Clipper)
    and candidate is not keras_clip.Clipper
]
CLIPPERS = [*FOUND, RunningMean, TellingMean]

# Clippers that combine others have no default.
ARGUMENTS = {
    keras_clip.Chain: lambda: (
        [keras_clip.ClipByValue(2.0), keras_clip.ClipByGlobalNorm(), RunningMean()],
    ),
    keras_clip.ClipperMap: lambda: (
        keras_clip.ClipByGlobalNorm(),
        {".*bias": RunningMean(), ".*(kernel|scale)": "clip_by_value"},
    ),
    keras_clip.ObserveOnly: lambda: (RunningMean(),),
}

# On the oldest Keras: one without state, one with state, one that combines others, a user's.
FEW = (keras_clip.ClipByGlobalNorm, keras_clip.AdaGC, keras_clip.Chain, RunningMean)

every_clipper = pytest.mark.parametrize(
    "clipper_class",
    [
        clipper if clipper in FEW else pytest.param(clipper, marks=pytest.mark.exhaustive)
        for clipper in CLIPPERS
    ],
    ids=lambda clipper: clipper.__name__,
)


def make(clipper_class):
    return clipper_class(*ARGUMENTS.get(clipper_class, tuple)())


def wrapped(clipper_class, inner="sgd"):
    return ClippedOptimizer(inner, clipper=make(clipper_class))


def test_every_public_clipper_is_found():
    assert keras_clip.ClipByGlobalNorm in FOUND
    assert {clipper.__name__ for clipper in FOUND} <= set(keras_clip.__all__)


class Recording(keras_clip.Clipper):
    """Keeps another clipper's gradients on the host: for eager tests only."""

    def __init__(self, inner):
        self.inner = inner
        self.pairs = []

    def build(self, variables):
        self.inner.build_for(variables)

    def clip(self, update):
        result = self.inner.clip(update)
        self.pairs.append((update.gradients, gradients_of(result)))
        return result


@every_clipper
def test_keeps_dtype_shape_and_never_enlarges(clipper_class):
    recording = Recording(make(clipper_class))
    optimizer = ClippedOptimizer("sgd", clipper=recording)
    apply_all(optimizer, make_variables(), gradient_stream(6))
    assert len(recording.pairs) == 6
    for before, after in recording.pairs:
        assert [g.dtype for g in before] == [g.dtype for g in after]
        assert [tuple(g.shape) for g in before] == [tuple(g.shape) for g in after]
        old, new = ([np.array(keras.ops.convert_to_numpy(g)) for g in gs] for gs in (before, after))
        assert reference.global_norm(new) <= reference.global_norm(old) * (1 + 1e-6)


@every_clipper
def test_tells_what_it_did(clipper_class):
    """Norms measured in NumPy; the scale is exactly 1 if nothing changed."""
    recording = Recording(make(clipper_class))
    optimizer = ClippedOptimizer("sgd", clipper=recording)
    idle = [gradient * 1e-4 for gradient in gradient_stream(1)[0]]
    apply_all(optimizer, make_variables(), [idle, *gradient_stream(6), idle])
    record = optimizer.history
    for index, pair in enumerate(recording.pairs):
        old, new = ([np.array(keras.ops.convert_to_numpy(g)) for g in gs] for gs in pair)
        norms = reference.global_norm(old), reference.global_norm(new)
        used = optimizer.clipper.inner
        norms = (norms[0], norms[0]) if isinstance(used, keras_clip.ObserveOnly) else norms
        assert record["grad_norm"][index] == pytest.approx(norms[0], rel=1e-6)
        assert record["clip_scale"][index] == pytest.approx(norms[1] / norms[0], rel=2e-6)
        changed = any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))
        assert (record["clip_scale"][index] == 1.0) == (not changed)
        if not np.isnan(record["clip_threshold"][index]):
            assert norms[1] <= record["clip_threshold"][index] * (1 + 1e-6)


# The direction of the whole gradient is kept, or that of each variable.
DIRECTION = {
    "AdaGC": "variable",
    "AutoClip": "whole",
    "ClipByBlockRMS": "variable",
    "ClipByGlobalNorm": "whole",
    "ClipByNorm": "variable",
    "ObserveOnly": "whole",
    "RunningMean": "whole",
    "TellingMean": "whole",
    "ZClip": "whole",
}


@pytest.mark.parametrize(
    "clipper_class",
    [clipper for clipper in CLIPPERS if clipper.__name__ in DIRECTION],
    ids=lambda c: c.__name__,
)
def test_keeps_the_direction(clipper_class):
    recording = Recording(make(clipper_class))
    apply_all(
        ClippedOptimizer("sgd", clipper=recording),
        make_variables(),
        [[gradient * 100.0 for gradient in gradients] for gradients in gradient_stream(6)],
    )
    for pair in recording.pairs:
        before, after = ([np.array(keras.ops.convert_to_numpy(g)) for g in gs] for gs in pair)
        factors = [np.atleast_1d(new / old) for old, new in zip(before, after, strict=True)]
        if DIRECTION[clipper_class.__name__] == "whole":
            factors = [np.concatenate([factor.reshape(-1) for factor in factors])]
        for factor in factors:
            np.testing.assert_allclose(factor, factor.flat[0], rtol=1e-6)


@every_clipper
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_variables_without_a_gradient_are_passed_over(clipper_class):
    """None may be in any position, also for a clipper with state for each variable."""
    stream = gradient_stream(len(SHAPES))
    for missing, gradients in enumerate(stream):
        gradients[missing] = None
    variables = make_variables()
    optimizer = wrapped(clipper_class)
    optimizer.build(variables)
    for missing, gradients in enumerate(stream):
        before = values(variables)
        apply_all(optimizer, variables, [gradients])
        changed = [
            not np.array_equal(*pair) for pair in zip(before, values(variables), strict=True)
        ]
        assert changed == [position != missing for position in range(len(SHAPES))]


@every_clipper
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_state_learns_nothing_from_nan_or_infinity(clipper_class, bad):
    variables = make_variables()
    optimizer = wrapped(clipper_class)
    apply_all(optimizer, variables, gradient_stream(2))
    before = values(optimizer.clipper.variables)
    gradients = gradient_stream(1)[0]
    gradients[1][1] = bad
    apply_all(optimizer, variables, [gradients])
    assert_identical(values(optimizer.clipper.variables), before)


@every_clipper
def test_zero_gradients_stay_zero(clipper_class):
    variables = make_variables()
    start = values(variables)
    zeros = [[np.zeros_like(value) for value in start]] * 3
    apply_all(wrapped(clipper_class), variables, zeros)
    assert_identical(values(variables), start)


@every_clipper
def test_compiled_equals_eager(clipper_class):
    eager, compiled = make_variables(), make_variables()
    eager_optimizer, compiled_optimizer = wrapped(clipper_class), wrapped(clipper_class)
    apply_all(eager_optimizer, eager, gradient_stream(5))
    step = compiled_step(compiled_optimizer, compiled)
    for gradients in gradient_stream(5):
        step(gradients)
    assert_close(values(compiled), values(eager))
    assert_close(values(compiled_optimizer.variables), values(eager_optimizer.variables))


@every_clipper
def test_state_moves_with_updates_only(clipper_class):
    """Three micro-batches equal their average, clipper state included."""
    stream = gradient_stream(9)
    averages = [
        [
            np.mean(same, axis=0, dtype=np.float64).astype("float32")
            for same in zip(*stream[i : i + 3], strict=True)
        ]
        for i in (0, 3, 6)
    ]
    accumulating = wrapped(clipper_class, keras.optimizers.SGD(0.05, gradient_accumulation_steps=3))
    once = wrapped(clipper_class, keras.optimizers.SGD(0.05))
    micro, whole = make_variables(), make_variables()
    apply_all(once, whole, averages)
    # Compiled: otherwise Keras on JAX compiles its branches again at every micro-batch.
    step = compiled_step(accumulating, micro)
    for i, gradients in enumerate(stream):
        before = values([accumulating.grad_norm, *accumulating.clipper.variables])
        step(gradients)
        after = values([accumulating.grad_norm, *accumulating.clipper.variables])
        if i % 3 != 2:
            assert_identical(after, before)
    assert_close(values(micro), values(whole))
    assert_close(values(accumulating.clipper.variables), values(once.clipper.variables))


class Signs(keras_clip.Clipper):
    """Makes small gradients longer, and infinite ones finite."""

    def clip(self, update):
        return [keras.ops.sign(gradient) for gradient in update.gradients]


def test_tells_what_was_made_longer_or_finite():
    optimizer = ClippedOptimizer("sgd", clipper=Signs())
    small, infinite = ([g.copy() for g in gradient_stream(1)[0]] for _ in range(2))
    infinite[0].flat[0] = np.inf
    small = [gradient * 1e-6 for gradient in small]
    apply_all(optimizer, make_variables(), [small, infinite])
    entries = sum(np.count_nonzero(gradient) for gradient in small)
    scale = optimizer.history["clip_scale"]
    assert scale[0] == pytest.approx(np.sqrt(entries) / reference.global_norm(small), rel=1e-5)
    assert scale[1] == 0.0


# `fit` compiles a model for each clipper, so a single model has all of them.
@pytest.mark.parametrize(
    "make_clipper",
    [RunningMean, pytest.param(whole_family, marks=pytest.mark.endurance)],
    ids=["own", "family"],
)
def test_state_moves_with_updates_only_in_fit(make_clipper):
    def model_with(steps):
        inner = keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps)
        return make_model(ClippedOptimizer(inner, clipper=make_clipper()))

    micro, whole = model_with(2), model_with(None)
    fit(micro, batch_size=4)
    fit(whole, batch_size=8)
    assert_close(micro.get_weights(), whole.get_weights(), rtol=5e-6)
    state = (values(model.optimizer.clipper.variables) for model in (micro, whole))
    assert_close(*state, rtol=5e-6)


@every_clipper
def test_config_round_trip(clipper_class):
    config = keras.saving.serialize_keras_object(make(clipper_class))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is clipper_class
    assert keras.saving.serialize_keras_object(again) == config


@every_clipper
def test_state_round_trip_in_the_middle_of_a_run(clipper_class):
    """The test uses the optimizer's own store; law 7 uses files and a new process."""
    stream = gradient_stream(6)
    variables = make_variables()
    optimizer = wrapped(clipper_class)
    apply_all(optimizer, variables, stream[:3])
    stores = saved(optimizer)
    config = keras.saving.serialize_keras_object(optimizer)
    resumed_variables = [keras.Variable(v.numpy(), name=v.name) for v in variables]
    resumed = keras.saving.deserialize_keras_object(config)
    resumed.build(resumed_variables)
    load(resumed, stores)
    apply_all(optimizer, variables, stream[3:])
    apply_all(resumed, resumed_variables, stream[3:])
    assert_identical(values(resumed_variables), values(variables))
    assert_identical(values(resumed.variables), values(optimizer.variables))


@every_clipper
def test_variables_in_another_order(clipper_class):
    forward, backward = make_variables(), make_variables()
    one, other = wrapped(clipper_class), wrapped(clipper_class)
    other.build(backward)
    apply_all(one, forward, gradient_stream(3))
    for gradients in gradient_stream(3):
        apply_all(other, backward[::-1], [gradients[::-1]])
    assert_close(values(backward), values(forward))


@every_clipper
def test_serves_one_optimizer(clipper_class):
    clipper = make(clipper_class)
    ClippedOptimizer("sgd", clipper=clipper, name="first")
    with pytest.raises(ValueError, match="belongs to the optimizer 'first' already"):
        ClippedOptimizer("sgd", clipper=clipper)


def test_a_refused_optimizer_leaves_the_clipper_free():
    clipper = keras_clip.ClipByGlobalNorm()
    with pytest.raises(ValueError, match="clips by itself"):
        ClippedOptimizer(keras.optimizers.SGD(clipnorm=1.0), clipper=clipper)
    ClippedOptimizer("sgd", clipper=clipper)


def test_state_is_created_in_build_only():
    with pytest.raises(RuntimeError, match=r"add_variable\(name='late'\) was called outside"):
        RunningMean().add_variable((), name="late")


def test_user_clipper_sees_the_true_update():
    optimizer = wrapped(RunningMean)
    variables = make_variables()
    stream = gradient_stream(4)
    mean = 0.0
    for step, gradients in enumerate(stream):
        weights = [reference.global_norm([value]) for value in values(variables)]
        apply_all(optimizer, variables, [gradients])
        mean = 0.9 * mean + 0.1 * reference.global_norm(gradients)
        assert float(optimizer.clipper.mean.numpy()) == pytest.approx(mean, rel=1e-5)
        assert int(optimizer.clipper.updates.numpy()) == step + 1
        np.testing.assert_allclose(optimizer.clipper.per_variable.numpy(), weights, rtol=1e-5)
