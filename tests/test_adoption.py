"""`adopt`: the next updates are those of Keras's own clip, with all state, and errors help."""

import contextlib

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClipByGlobalNorm, ClipByNorm, ClipByValue, ClippedOptimizer, adopt
from tests.support.gradient_stream import (
    apply_all,
    as_tensors,
    assert_close,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import data, fit, make_model
from tests.support.optimizers import OPTIONS, halving_schedule, keras_has, maker

CLIPS = {
    "clipnorm": (0.4, ClipByNorm, "max_norm"),
    "clipvalue": (0.3, ClipByValue, "max_value"),
    "global_clipnorm": (0.5, ClipByGlobalNorm, "max_norm"),
}
needs_multi = pytest.mark.skipif(
    not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)


def clip_of(argument):
    return {argument: CLIPS[argument][0]}


def trained(make, steps=10):
    """An optimizer in the middle of a run, and its variables."""
    optimizer, variables = make(), make_variables()
    optimizer.build(variables)
    apply_all(optimizer, variables, gradient_stream(steps))
    return optimizer, variables


def check_next_updates(make, steps=50, *, before=10):
    """An adopted optimizer and one that goes on with Keras's clip come to the same weights."""
    expected, weights = trained(make, before)
    inner, others = trained(make, before)
    state = values(inner.variables)
    adopted = adopt(inner).optimizer
    assert adopted.built
    assert_identical(values(adopted.variables)[: len(state)], state)
    apply_all(expected, weights, gradient_stream(steps, seed=5))
    apply_all(adopted, others, gradient_stream(steps, seed=5))
    assert_close(values(others), values(weights))
    assert_close(values(adopted.variables)[: len(state)], values(expected.variables))
    return adopted


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("SGD momentum", "global_clipnorm"),
        ("Adam", "global_clipnorm"),
        ("Adam", "clipnorm"),
        ("Adam", "clipvalue"),
        pytest.param("Nadam", "global_clipnorm", marks=pytest.mark.endurance),
        pytest.param("Lamb", "global_clipnorm", marks=pytest.mark.endurance),
    ],
)
def test_the_next_50_updates_are_those_of_keras(name, argument):
    adopted = check_next_updates(maker(name, **clip_of(argument)))
    value, cls, attribute = CLIPS[argument]
    assert type(adopted.clipper) is cls
    assert float(getattr(adopted.clipper, attribute)) == pytest.approx(value)
    assert float(adopted.grad_norm) > value
    assert (adopted.clipnorm, adopted.clipvalue, adopted.global_clipnorm) == (None, None, None)


@pytest.mark.any_backend
@pytest.mark.parametrize("option", [o for o in OPTIONS if o != "plain"])
def test_with_every_option_of_keras(option):
    check_next_updates(maker("Adam", global_clipnorm=0.5, **OPTIONS[option]), steps=5, before=4)


def test_an_assigned_learning_rate_and_a_schedule_stay():
    optimizer, _ = trained(maker("Adam", clipnorm=0.4))
    optimizer.learning_rate = 0.002
    adopted = adopt(optimizer).optimizer
    assert float(adopted.learning_rate) == pytest.approx(0.002)
    assert adopted.inner_optimizer is optimizer
    check_next_updates(
        lambda: keras.optimizers.SGD(halving_schedule(), momentum=0.9, clipvalue=0.3),
        steps=8,
        before=4,
    )


def test_an_optimizer_that_is_not_built():
    adoption = adopt(keras.optimizers.Adam(0.05, global_clipnorm=0.5))
    assert "is not built and has no moments" in str(adoption)
    variables = make_variables()
    apply_all(adoption.optimizer, variables, gradient_stream(3))
    _, expected = trained(maker("Adam", global_clipnorm=0.5), 3)
    assert_close(values(variables), values(expected))


@pytest.mark.skipif(keras.config.backend() == "jax", reason="Keras scales the loss in `fit` only")
@pytest.mark.parametrize("argument", CLIPS)
def test_a_loss_scale_stays_outside_with_its_scale(argument):
    def make():
        inner = keras.optimizers.Adam(0.05, **clip_of(argument))
        outer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
        outer.dynamic_growth_steps = 7
        return outer

    def run(optimizer, variables, stream):
        for gradients in stream:
            # What a scaled loss would give.
            scale = float(optimizer.dynamic_scale.numpy())
            optimizer.apply(as_tensors([g * np.float32(scale) for g in gradients]), variables)

    runs = []
    for adopts in (False, True):
        optimizer, variables = make(), make_variables()
        optimizer.build(variables)
        run(optimizer, variables, gradient_stream(10))
        if adopts:
            adoption = adopt(optimizer)
            assert adoption.optimizer is optimizer
            assert isinstance(optimizer.inner_optimizer, ClippedOptimizer)
            assert "LossScaleOptimizer stays outside" in str(adoption)
        run(optimizer, variables, gradient_stream(20, seed=5))
        runs.append(values([*variables, optimizer.dynamic_scale, optimizer.step_counter]))
    assert_close(runs[1], runs[0])
    # Doubled before and after the adoption.
    assert runs[1][-2] == 4.0 * 2 ** (30 // 7)


def multi(first, second):
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(first, {".*kernel": second})
    )


@needs_multi
@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue"])
def test_members_with_the_same_clip(argument):
    clip = clip_of(argument)
    check_next_updates(
        lambda: multi(keras.optimizers.SGD(0.05, **clip), keras.optimizers.Adam(0.05, **clip)),
        steps=8,
        before=4,
    )


@needs_multi
def test_members_with_the_same_global_norm_have_one_over_all():
    def member():
        return keras.optimizers.SGD(1.0, global_clipnorm=0.5)

    optimizer, variables = multi(member(), member()), make_variables()
    optimizer.build(variables)
    adoption = adopt(optimizer)
    assert "Each of the 2 members had a norm of its own" in str(adoption)
    before, (gradients,) = values(variables), gradient_stream(1)
    adoption.optimizer.apply(as_tensors(gradients), variables)
    norm = np.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in gradients))
    expected = [b - g * (0.5 / norm) for b, g in zip(before, gradients, strict=True)]
    assert_close(values(variables), expected)


def arguments_of_compile():
    """A lambda and a metric of which no file could make another."""
    steps = {} if keras.config.backend() == "torch" else {"steps_per_execution": 3}
    return {
        "loss": [lambda y, p: keras.ops.mean(keras.ops.square(y - p))],
        "metrics": [keras.metrics.MeanAbsoluteError(name="own")],
        "loss_weights": [0.5],
        **steps,
    }


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_compiled_model_trains_on(policy):
    keras.config.set_dtype_policy(policy)
    try:
        models = [make_model(), make_model()]
    finally:
        keras.config.set_dtype_policy("float32")
    for model in models:
        model.compile(keras.optimizers.Adam(0.01, global_clipnorm=0.5), **arguments_of_compile())
        fit(model)
        model.optimizer.learning_rate = 0.02
    bare, adopted = models
    before = adopted._compile_config.config
    adoption = adopt(adopted)
    assert adoption.optimizer is adopted.optimizer
    assert "compiled again" in str(adoption)
    after = adopted._compile_config.config
    assert all(after[key] is before[key] for key in before if key != "optimizer")
    expected, actual = (fit(model, epochs=9).history for model in models)  # 54 updates
    for key in expected:
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-4)
    tolerance = 1e-6 if policy == "float32" else 1e-4
    assert_close(adopted.get_weights(), bare.get_weights(), tolerance)
    scaled = isinstance(adopted.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    wrapper = adopted.optimizer.inner_optimizer if scaled else adopted.optimizer
    same = bare.optimizer.inner_optimizer if scaled else bare.optimizer
    assert int(wrapper.iterations) == int(same.iterations) > 60
    assert len(wrapper.history["step"]) == 54


def test_an_adopted_model_is_saved_and_goes_on(tmp_path):
    model = make_model(keras.optimizers.Adam(0.01, clipvalue=0.3))
    fit(model)
    adopt(model)
    fit(model, epochs=1)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    fit(model)
    fit(loaded)
    assert_identical(values(loaded.optimizer.variables), values(model.optimizer.variables))
    assert_identical(loaded.get_weights(), model.get_weights())


class OwnCompile(keras.Model):
    """Takes arguments of its own, as the models of Keras's guides do."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    def compile(self, own_optimizer, own_factor):
        super().compile(own_optimizer, loss="mse")
        self.own_factor = own_factor


def test_a_model_with_a_compile_of_its_own():
    model = OwnCompile()
    model.compile(keras.optimizers.SGD(0.01, clipnorm=0.1), 3.0)
    fit(model)
    adopt(model)
    fit(model)
    assert model.own_factor == 3.0
    assert int(model.optimizer.iterations) == 24


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="strategies of TensorFlow")
def test_on_two_replicas_it_comes_to_what_one_device_does():
    from tests.support.mirrored import mirrored_strategy

    weights = []
    inputs, targets = data()
    for strategy in (None, mirrored_strategy()):
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            model = make_model(keras.optimizers.SGD(0.05, global_clipnorm=0.5), jit_compile=False)
        # Built, and not yet trained: Keras's own steps differ.
        model.optimizer.build(model.trainable_variables)
        assert "replicas" in str(adopt(model))
        model.fit(inputs, targets, batch_size=16, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert_close(weights[1], weights[0], rtol=1e-5)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="slices of TensorFlow")
def test_repeated_rows_of_an_embedding_are_summed_first():
    """Law: what Adam gets are the sums of rows, clipped by the norm of the sums."""
    import tensorflow as tf

    def make():
        return keras.optimizers.Adam(0.05, global_clipnorm=0.5)

    variable, other = (keras.Variable(np.zeros((3, 2), "float32")) for _ in range(2))
    slices = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), tf.constant([3, 2]))
    adopt(make()).optimizer.apply([slices], [variable])
    make().apply([tf.convert_to_tensor([[0.0, 0], [2, 2], [0, 0]])], [other])
    assert_close(values([variable]), values([other]))


def unbuilt_multi():
    one = keras.optimizers.SGD(clipnorm=1.0)
    return keras.optimizers.MultiOptimizer(lambda variable: one)


def two_clips():
    optimizer = keras.optimizers.SGD(name="mine", clipnorm=1.0)
    optimizer.clipvalue = 2.0
    return optimizer


SGD = keras.optimizers.SGD
REFUSED = {
    "not an optimizer": (lambda: "adam", TypeError, "keras.Model or a keras.optimizers.Optimizer"),
    "not compiled": (make_model, ValueError, r"no optimizer.*model\.compile\(ClippedOptimizer\("),
    "no clip": (lambda: SGD(name="mine"), ValueError, r"SGD 'mine' has no .*max_norm=1\.0\)"),
    "a wrapper": (lambda: ClippedOptimizer(SGD()), ValueError, "ClippedOptimizer already.*Assign"),
    "a wrapper in a loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(ClippedOptimizer(SGD())),
        ValueError,
        "ClippedOptimizer already",
    ),
    "ignored by Keras": (lambda: SGD(clipnorm=-1.0), ValueError, r"clipnorm=-1\.0.*ignores"),
    "two clips": (two_clips, ValueError, r"clipnorm=1\.0, clipvalue=2\.0.*only one"),
}
MULTI = {
    "different clips": (
        lambda: multi(SGD(name="a", clipnorm=1.0), SGD(name="b", clipvalue=2.0)),
        ValueError,
        r"(?s)different clips: .*'a' clipnorm=1\.0.*ClipperMap",
    ),
    "one member without": (
        lambda: multi(SGD(clipnorm=1.0), SGD(name="b")),
        ValueError,
        "SGD 'b' has no clipnorm",
    ),
    "members by a function": (unbuilt_multi, ValueError, r"optimizer\.build\("),
}


@pytest.mark.parametrize("case", [*REFUSED, *(MULTI if keras_has("MultiOptimizer") else ())])
def test_what_cannot_be_adopted_is_an_error(case):
    make, error, message = {**REFUSED, **MULTI}[case]
    with pytest.raises(error, match=message):
        adopt(make())


def test_nothing_is_changed_by_an_error(monkeypatch):
    optimizer = SGD(clipnorm=1.0)
    monkeypatch.setattr(
        keras_clip.adoption, "ClippedOptimizer", lambda *a, **k: (_ for _ in ()).throw(OSError)
    )
    with pytest.raises(OSError):
        adopt(optimizer)
    assert optimizer.clipnorm == 1.0


def test_the_paragraph():
    adoption = adopt(keras.optimizers.Adam(global_clipnorm=1.0, name="mine"))
    assert str(adoption) == (
        "The clip global_clipnorm=1.0 of the Adam 'mine' is None now, and the "
        "ClipByGlobalNorm(1.0) of a ClippedOptimizer around it clips instead. The "
        "optimizer is not built and has no moments yet. On one device, steps agree with those "
        "before to 1e-6. On several replicas of tf.distribute, Keras clipped the gradients of "
        "each replica; the wrapper clips their sum, so the same number clips more."
    )
