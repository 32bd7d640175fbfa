"""What every clipper promises, those of keras_clip and a user's; each is found by itself."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from tests.reference import global_norm as reference
from tests.support.compiled_step import compiled_step
from tests.support.gradient_stream import (
    apply_all,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model
from tests.support.stateful_clipper import RunningMean

FOUND = [
    candidate
    for candidate in vars(keras_clip.clippers).values()
    if isinstance(candidate, type)
    and issubclass(candidate, keras_clip.Clipper)
    and candidate is not keras_clip.Clipper
]
CLIPPERS = [*FOUND, RunningMean]

# Clippers that are made of others have no default.
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

every_clipper = pytest.mark.parametrize("clipper_class", CLIPPERS, ids=lambda c: c.__name__)


def make(clipper_class):
    return clipper_class(*ARGUMENTS.get(clipper_class, tuple)())


def wrapped(clipper_class, inner="sgd"):
    return ClippedOptimizer(inner, clipper=make(clipper_class))


def test_every_public_clipper_is_found():
    assert keras_clip.ClipByGlobalNorm in FOUND
    assert {clipper.__name__ for clipper in FOUND} <= set(keras_clip.__all__)


class Recording(keras_clip.Clipper):
    """Keeps what another clipper made of the gradients, on the host: for eager tests only."""

    def __init__(self, inner):
        self.inner = inner
        self.pairs = []

    def build(self, variables):
        self.inner.build_for(variables)

    def clip(self, update):
        clipped = self.inner.clip(update)
        self.pairs.append((update.gradients, clipped))
        return clipped


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
    for i, gradients in enumerate(stream):
        before = values([accumulating.grad_norm, *accumulating.clipper.variables]) if i else None
        apply_all(accumulating, micro, [gradients])
        after = values([accumulating.grad_norm, *accumulating.clipper.variables])
        if i % 3 != 2 and before is not None:
            assert_identical(after, before)
    assert_close(values(micro), values(whole))
    assert_close(values(accumulating.clipper.variables), values(once.clipper.variables))


@every_clipper
def test_state_moves_with_updates_only_in_fit(clipper_class):
    def model_with(steps):
        inner = keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps)
        return make_model(wrapped(clipper_class, inner))

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
def test_state_round_trip_in_the_middle_of_a_run(clipper_class, tmp_path):
    model = make_model(wrapped(clipper_class, "adam"))
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(model)
    fit(loaded)
    assert_identical(loaded.get_weights(), model.get_weights())
    assert_identical(values(loaded.optimizer.variables), values(model.optimizer.variables))


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
