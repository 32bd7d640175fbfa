"""`RollBack`: a diverged run goes on as if the bad batches had not existed."""

import logging

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import AutoClip, ClippedOptimizer, Outliers, RollBack, TooManyRollBacksError
from tests.support.gradient_stream import as_tensors, assert_identical, values
from tests.support.mirrored import mirrored_strategy
from tests.support.seeds import fix_seeds

BATCH = 4

# The checks are Python code, and compiled steps take seconds.
DECIDED_ON_THE_HOST = pytest.mark.any_backend


def make_model(optimizer=None, loss="mse"):
    """Return a model with a seed in a layer."""
    fix_seeds(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dropout(0.5, seed=5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer or adaptive(), loss=loss)
    return model


def adaptive(**options):
    return ClippedOptimizer(
        keras.optimizers.Adam(0.05), clipper=AutoClip(60.0, history_size=5), **options
    )


def batches(count, bad=(), value=np.nan):
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(count, BATCH, 4)).astype("float32")
    targets = inputs.sum(axis=2, keepdims=True)
    targets[list(bad)] = value
    return inputs, targets


def fit(model, inputs, targets, callbacks=(), **arguments):
    model.fit(
        inputs.reshape(-1, 4),
        targets.reshape(-1, 1),
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        **arguments,
    )


def everything(model):
    """All of model and optimizer, seeds and counters included, without the record."""
    record = [id(variable) for variable in model.optimizer.record_variables]
    variables = [v for v in (*model.variables, *model.optimizer.variables) if id(v) not in record]
    assert any("seed" in variable.path for variable in variables)
    return values(variables)


def after(order, **arguments):
    """The state of a run that has only these of ten good batches."""
    model = make_model()
    inputs, targets = batches(10)
    fit(model, inputs[order], targets[order], **arguments)
    return everything(model)


def test_as_if_the_bad_batches_had_never_come():
    """Checked after each batch, of which 4 is NaN.

    Batch 3 confirms the copy of 3 batches, and none confirms that of 4.
    """
    model = make_model()
    inputs, targets = batches(10, bad=[4])
    roll_back = RollBack(every=1, check_every=1, patience=1)
    fit(model, inputs, targets, [roll_back])
    assert_identical(everything(model), after([0, 1, 2, 5, 6, 7, 8, 9]))
    (event,) = roll_back.events
    assert event == {
        "step": 5,
        "reason": "the loss is nan",
        "bad_since": 4,
        "epoch": 0,
        "batch": 4,
        "restored_step": 3,
    }
    # The record keeps the updates that were taken back.
    assert model.optimizer.history["step"].tolist() == list(range(10))
    assert np.isnan(model.optimizer.history["grad_norm"][4])


@DECIDED_ON_THE_HOST
def test_checks_and_patience_in_batches():
    """Checks after 2, 4, 6, 8 batches; the weights are NaN from the fifth on."""
    model = make_model()
    inputs, targets = batches(10, bad=[4])
    roll_back = RollBack(every=2, check_every=2, patience=2)
    fit(model, inputs, targets, [roll_back])
    assert_identical(everything(model), after([0, 1, 8, 9]))
    assert [event["step"] for event in roll_back.events] == [8]
    assert roll_back.events[0]["bad_since"] == 4
    assert roll_back.events[0]["restored_step"] == 2


@DECIDED_ON_THE_HOST
@pytest.mark.parametrize("with_validation", [False, True])
def test_epochs_shorter_than_a_check(with_validation):
    """The second epoch goes bad at its only check, at its end."""
    inputs, targets = batches(2)
    model = make_model()
    given = {"validation_data": (inputs[0], targets[0])} if with_validation else {}

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.params["epoch"] == 1:
                self.model.trainable_variables[0].assign(np.full((4, 6), np.nan))

        def on_epoch_begin(self, epoch, logs=None):
            self.params["epoch"] = epoch

    roll_back = RollBack(every=1, check_every=10, patience=1)
    fit(model, inputs, targets, [roll_back, Spoil()], epochs=3, **given)
    order = [0, 1]
    expected = make_model()
    fit(expected, inputs[order], targets[order])
    # The copy after the first epoch was not confirmed, so the third begins as the first did.
    assert [event["restored_step"] for event in roll_back.events] == [0]
    assert_identical(everything(model), everything(expected))


@DECIDED_ON_THE_HOST
def test_a_skipped_batch_alone_is_no_reason():
    """Its loss is NaN, which the mean of the epoch would keep."""
    model = make_model(adaptive(nonfinite="skip"))
    inputs, targets = batches(10, bad=[4])
    roll_back = RollBack(every=2, check_every=2)
    logs = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, found: logs.update(found))
    fit(model, inputs, targets, [roll_back, keep])
    assert roll_back.events == []
    assert np.isfinite(logs["loss"])
    assert int(model.optimizer.skipped_steps.numpy()) == 1


def test_when_all_updates_are_skipped():
    model = make_model(adaptive(skip_above=Outliers(window=4, warm_up=2)))
    inputs, targets = batches(10, bad=[6, 7, 8], value=1e8)
    roll_back = RollBack(every=2, check_every=1, patience=3, multiple=1e30)
    fit(model, inputs, targets, [roll_back])
    (event,) = roll_back.events
    assert event["reason"] == "all updates were skipped (1)"
    assert (event["step"], event["restored_step"]) == (9, 4)
    expected = make_model(adaptive(skip_above=Outliers(window=4, warm_up=2)))
    order = [0, 1, 2, 3, 9]
    inputs, targets = batches(10)
    fit(expected, inputs[order], targets[order])
    assert_identical(everything(model), everything(expected))


@DECIDED_ON_THE_HOST
def test_the_loss_of_a_skipped_batch_is_not_judged():
    model = make_model(adaptive(skip_above=Outliers(window=4, warm_up=2)))
    inputs, targets = batches(10, bad=[6], value=1e8)
    roll_back = RollBack(check_every=2, patience=1, window=4)
    fit(model, inputs, targets, [roll_back])
    assert int(model.optimizer.skipped_steps.numpy()) == 1
    assert roll_back.events == []


@DECIDED_ON_THE_HOST
def test_skips_after_a_rollback_count_from_the_snapshot():
    model = make_model(adaptive(skip_above=Outliers(window=4, warm_up=2)))
    inputs, targets = batches(10, bad=[6, 7], value=1e8)
    roll_back = RollBack(every=2, check_every=1, patience=1, multiple=1e30)
    fit(model, inputs, targets, [roll_back])
    assert [event["step"] for event in roll_back.events] == [7, 8]


@DECIDED_ON_THE_HOST
def test_patience_starts_anew_after_a_rollback():
    inputs, targets = batches(10, bad=[4, 5, 6])
    roll_back = RollBack(every=1, check_every=1, patience=2)
    fit(make_model(adaptive(nonfinite="skip")), inputs, targets, [roll_back])
    assert [event["step"] for event in roll_back.events] == [6]


@DECIDED_ON_THE_HOST
def test_a_loss_that_is_an_outlier():
    model = make_model()
    inputs, targets = batches(12, bad=[8, 9], value=1e4)
    roll_back = RollBack(every=1, check_every=1, patience=2, window=6)
    fit(model, inputs, targets, [roll_back])
    (event,) = roll_back.events
    assert event["reason"].startswith("the loss 1e+08 is above ")
    assert (event["step"], event["bad_since"], event["restored_step"]) == (10, 8, 7)


@DECIDED_ON_THE_HOST
def test_a_second_failure_goes_back_further():
    model = make_model()
    inputs, targets = batches(12, bad=[6, 7])
    roll_back = RollBack(every=2, snapshots=3, check_every=1, patience=1)
    fit(model, inputs, targets, [roll_back])
    assert [(e["step"], e["restored_step"]) for e in roll_back.events] == [(7, 4), (8, 2)]
    inputs, targets = batches(12)
    expected = make_model()
    order = [0, 1, 8, 9, 10, 11]
    fit(expected, inputs[order], targets[order])
    assert_identical(everything(model), everything(expected))


def test_too_many():
    model = make_model()
    inputs, targets = batches(10, bad=range(4, 10))
    roll_back = RollBack(every=1, check_every=1, patience=1, max_rollbacks=2)
    with pytest.raises(TooManyRollBacksError, match=r"the loss is nan.*max_rollbacks=2 times"):
        fit(model, inputs, targets, [roll_back])
    assert len(roll_back.events) == 2
    assert_identical(model.get_weights(), trained_weights([0, 1, 2]))


def trained_weights(order):
    model = make_model()
    inputs, targets = batches(10)
    fit(model, inputs[order], targets[order])
    return model.get_weights()


@DECIDED_ON_THE_HOST
def test_the_learning_rate_is_lowered_and_otherwise_stays():
    model = make_model()
    inputs, targets = batches(12, bad=[4, 8])
    roll_back = RollBack(every=1, check_every=1, patience=1, learning_rate_factor=0.5)
    fit(model, inputs, targets, [roll_back])
    assert len(roll_back.events) == 2
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.0125, rtol=1e-6)


def test_the_learning_rate_is_lowered_for_a_while():
    """Rollbacks before batches 5 and 7 halve it for four batches each."""
    inputs, targets = batches(14, bad=[4, 6])
    rates = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    roll_back = RollBack(
        every=1, check_every=1, patience=1, learning_rate_factor=0.5, learning_rate_steps=4
    )
    fit(make_model(), inputs, targets, [roll_back, Watch()])
    expected = np.array([1.0] * 5 + [0.5] * 2 + [0.25] * 2 + [0.5] * 2 + [1.0] * 3)
    np.testing.assert_allclose(rates, 0.05 * expected, rtol=1e-6)


def test_a_lower_rate_ends_with_fit():
    inputs, targets = batches(6, bad=[3])
    roll_back = RollBack(
        every=1, check_every=1, patience=1, learning_rate_factor=0.5, learning_rate_steps=100
    )
    model = make_model()
    fit(model, inputs, targets, [roll_back])
    assert len(roll_back.events) == 1
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.05, rtol=1e-6)


def test_a_rate_that_was_set_meanwhile_stays():
    model = make_model()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    roll_back = RollBack(
        every=1, check_every=1, patience=1, learning_rate_factor=0.5, learning_rate_steps=2
    )
    roll_back.start(model)
    assert [roll_back.after_batch(loss) for loss in (1.0, np.nan)] == [False, True]
    optimizer.learning_rate = 0.3
    for _ in range(4):
        roll_back.after_batch(1.0)
    np.testing.assert_allclose(float(optimizer.learning_rate), 0.3, rtol=1e-6)


@DECIDED_ON_THE_HOST
def test_a_check_of_mixed_batches_is_not_the_first_bad_one():
    model = make_model(adaptive(nonfinite="skip"))
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    roll_back = RollBack(every=2, check_every=2, patience=1)
    roll_back.start(model)
    shapes = [variable.shape for variable in model.trainable_variables]
    for batch in range(8):
        size = np.nan if batch == 4 else 1.0  # skipped; batch 5 is applied
        optimizer.apply(
            as_tensors([np.full(shape, size, "float32") for shape in shapes]),
            model.trainable_variables,
        )
        went_back = roll_back.after_batch(np.nan if batch >= 6 else 1.0)
    assert went_back
    assert (roll_back.events[0]["bad_since"], roll_back.events[0]["step"]) == (6, 8)


def test_a_learning_rate_that_a_callback_sets_stays():
    """It is lowered in the second epoch, and the snapshot is of the first."""
    inputs, targets = batches(4)
    model = make_model()
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: [0.05, 0.01][epoch])

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.trainable_variables[0].assign(np.full((4, 6), np.nan))

    roll_back = RollBack(every=1, check_every=1, patience=1)
    fit(model, inputs, targets, [rates, Spoil(), roll_back], epochs=2)
    (event,) = roll_back.events
    assert (event["step"], event["restored_step"]) == (5, 3)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.01, rtol=1e-6)


@DECIDED_ON_THE_HOST
def test_a_schedule_cannot_be_lowered():
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)
    model = make_model(ClippedOptimizer(keras.optimizers.SGD(decay)))
    with pytest.raises(ValueError, match=r"has a schedule.*learning_rate_factor=0.5"):
        fit(model, *batches(1), [RollBack(learning_rate_factor=0.5)])


@pytest.mark.parametrize("wrap", ["bare", "loss scale", "multi"])
def test_other_optimizers(wrap):
    def optimizer():
        adam = keras.optimizers.Adam(0.05)
        if wrap == "bare":
            return adam
        if wrap == "loss scale":
            return keras.optimizers.LossScaleOptimizer(ClippedOptimizer(adam), initial_scale=8.0)
        if not hasattr(keras.optimizers, "MultiOptimizer"):
            pytest.skip("this Keras has no MultiOptimizer")
        members = {"bias": ClippedOptimizer(keras.optimizers.SGD(0.01))}
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(adam, members))

    model = make_model(optimizer())
    inputs, targets = batches(10, bad=[4, 5, 6])
    roll_back = RollBack(every=1, check_every=1, patience=3, learning_rate_factor=0.5)
    fit(model, inputs, targets, [roll_back])
    (event,) = roll_back.events
    assert (event["step"], event["restored_step"]) == (7, 3)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_a_model_that_the_first_step_builds():
    """On TensorFlow there is nothing to copy before."""
    fix_seeds(3)
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(ClippedOptimizer("sgd"), loss="mse")
    inputs, targets = batches(8, bad=[4])
    roll_back = RollBack(every=1, check_every=1, patience=1)
    fit(model, inputs, targets, [roll_back])
    assert [(e["step"], e["restored_step"]) for e in roll_back.events] == [(5, 3)]
    expected = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    expected.compile(ClippedOptimizer("sgd"), loss="mse")
    order = [0, 1, 2, 5, 6, 7]
    fit(expected, inputs[order], targets[order])
    assert_identical(model.get_weights(), expected.get_weights())


@DECIDED_ON_THE_HOST
def test_each_event_is_logged(caplog):
    inputs, targets = batches(6, bad=[4])
    with caplog.at_level(logging.WARNING, logger="keras_clip"):
        fit(make_model(), inputs, targets, [RollBack(every=1, check_every=1, patience=1)])
    (message,) = [record.getMessage() for record in caplog.records if record.name == "keras_clip"]
    assert message == (
        "After 5 batches the loss is nan. RollBack restored the state after 3 batches."
    )


def test_a_loop_of_your_own():
    variable = keras.Variable(np.float32([1.0, 2.0]), name="kernel")
    layer = keras.layers.Layer()
    layer.variable = variable
    model = keras.Sequential([layer])
    optimizer = ClippedOptimizer(keras.optimizers.Adam(0.1), 1.0)
    optimizer.build([variable])
    roll_back = RollBack(
        every=2, check_every=2, patience=1, learning_rate_factor=0.5, learning_rate_steps=1
    )
    roll_back.start(model, optimizer)
    states, went_back, rates = [values([variable])], [], []
    for batch in range(8):
        size = np.nan if batch == 5 else 1.0
        rates.append(float(optimizer.learning_rate))
        optimizer.apply(as_tensors([np.float32([3.0, 4.0]) * np.float32(size)]), [variable])
        states.append(values([variable]))
        went_back.append(roll_back.after_batch(keras.ops.convert_to_tensor(size)))
        if went_back[-1]:
            assert_identical(values([variable]), states[2])
            assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 2
    assert went_back == [False] * 5 + [True, False, False]
    np.testing.assert_allclose(rates, [0.1] * 6 + [0.05, 0.1], rtol=1e-6)
    assert np.isfinite(values([variable])[0]).all()


def test_a_loop_has_to_start():
    with pytest.raises(ValueError, match="Call RollBack.start"):
        RollBack().after_batch(0.0)
    with pytest.raises(ValueError, match="has none yet"):
        RollBack().start(make_model(), ClippedOptimizer("sgd"))


def test_a_train_step_without_the_metric():
    class Resets(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.reset_metrics()

    with pytest.raises(ValueError, match="no batch has updated it"):
        fit(make_model(), *batches(2), [Resets(), RollBack(check_every=1)])


def test_keras_does_not_wait_for_each_batch():
    """It converts the logs of every batch for a callback with `on_train_batch_end`."""
    for name in ("on_train_batch_end", "on_batch_end"):
        assert getattr(RollBack, name) is getattr(keras.callbacks.Callback, name)


def test_replicas(backend):
    if backend != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    results = []
    for bad in ([4], []):
        with mirrored_strategy().scope():
            model = make_model()
        inputs, targets = batches(10, bad=bad)
        order = list(range(10)) if bad else [0, 1, 2, 5, 6, 7, 8, 9]
        roll_back = RollBack(every=1, check_every=1, patience=1)
        fit(model, inputs[order], targets[order], [roll_back])
        assert len(roll_back.events) == len(bad)
        results.append(everything(model))
    assert_identical(*results)


def test_several_processes_would_each_decide(monkeypatch):
    from keras_clip.recovery import run_state

    monkeypatch.setattr(run_state.backend, "process_count", lambda variable: 2)
    with pytest.raises(ValueError, match=r"one process.*2 processes train"):
        fit(make_model(), *batches(1), [RollBack()])
    with pytest.raises(ValueError, match=r"one process.*2 processes train"):
        RollBack().start(make_model())


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"every": 0}, ValueError, "every must be an int that is at least 1"),
        ({"snapshots": 0}, ValueError, "snapshots must be an int"),
        ({"check_every": 1.5}, TypeError, "check_every must be an int"),
        ({"patience": 0}, ValueError, "patience must be an int"),
        ({"multiple": -1}, ValueError, "multiple must be"),
        ({"window": 1}, ValueError, "window must be an int that is at least 2"),
        ({"learning_rate_factor": 0.0}, ValueError, "learning_rate_factor must be a number above"),
        ({"learning_rate_factor": 1.5}, ValueError, "learning_rate_factor must be a number above"),
        ({"learning_rate_steps": 5}, ValueError, "Give learning_rate_factor as well"),
        (
            {"learning_rate_factor": 0.5, "learning_rate_steps": 0},
            ValueError,
            "learning_rate_steps must be an int that is at least 1",
        ),
        ({"max_rollbacks": -1}, ValueError, "max_rollbacks must be an int that is at least 0"),
    ],
)
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        keras_clip.RollBack(**arguments)
