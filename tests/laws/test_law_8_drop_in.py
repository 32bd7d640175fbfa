"""Law 8: everything that runs with the bare optimizer runs with the wrapper."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer
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
from tests.support.optimizers import keras_has, maker

ACTIVE = 0.3
backend_is = keras.config.backend()
RUNS_STEPS_ON_TORCH = not keras.__version__.startswith(tuple(f"3.{minor}." for minor in range(16)))


def both(make, max_norm=1e30, **compile_arguments):
    """Models with the bare and with the wrapped optimizer, otherwise equal."""
    return (
        make_model(make(), **compile_arguments),
        make_model(ClippedOptimizer(make(), max_norm), **compile_arguments),
    )


class TestFit:
    @pytest.mark.parametrize(
        "arguments",
        [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 4}],
        ids=lambda arguments: next(iter(arguments)),
    )
    @pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
    @pytest.mark.filterwarnings("ignore::FutureWarning:torch")
    def test_ways_to_run_a_step(self, arguments):
        if backend_is == "torch" and "steps_per_execution" in arguments and not RUNS_STEPS_ON_TORCH:
            # Keras itself: the bare optimizer does no better.
            with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
                fit(make_model("sgd", **arguments))
            return
        if backend_is == "torch" and "jit_compile" in arguments and not keras_has("MultiOptimizer"):
            # Keras 3.8 does not compile with this torch, wrapped or not.
            with pytest.raises(Exception, match=r"Dense.call\(\)"):
                fit(make_model("sgd", **arguments))
            return
        bare, wrapped = both(maker("SGD momentum"), **arguments)
        fit(bare)
        fit(wrapped)
        assert_identical(wrapped.get_weights(), bare.get_weights())
        # The same model goes on with its compiled step: this takes long.
        builtin = make_model(maker("SGD momentum", global_clipnorm=ACTIVE)())
        builtin.optimizer.build(builtin.trainable_variables)
        builtin.set_weights(bare.get_weights())
        for variable, value in zip(
            builtin.optimizer.variables, values(bare.optimizer.variables), strict=True
        ):
            variable.assign(value)
        wrapped.optimizer.max_norm = ACTIVE
        fit(wrapped)
        fit(builtin)
        assert float(wrapped.optimizer.grad_norm.numpy()) > ACTIVE
        assert not np.array_equal(wrapped.get_weights()[0], bare.get_weights()[0])
        assert_close(wrapped.get_weights(), builtin.get_weights(), rtol=1e-5)

    def test_by_name_in_compile(self):
        model = make_model(ClippedOptimizer("adam"))
        fit(model)
        assert float(model.optimizer.max_norm.numpy()) == 1.0

    def test_train_on_batch(self):
        bare, wrapped = both(maker("Adam"))
        inputs, targets = data()
        for model in (bare, wrapped):
            for _ in range(3):
                model.train_on_batch(inputs, targets)
        assert_identical(wrapped.get_weights(), bare.get_weights())

    def test_a_second_fit_with_moving_averages(self):
        """Fails in Keras itself on JAX; if the bare optimizer can, the wrapper can."""
        outcomes = []
        for model in both(maker("SGD", use_ema=True)):
            fit(model, epochs=1)
            try:
                fit(model, epochs=1)
                outcomes.append(model.get_weights())
            except Exception as error:
                assert backend_is == "jax"
                outcomes.append([np.array(type(error).__name__)])
        assert_identical(*outcomes)

    def test_summary_counts_each_variable_once(self):
        model = make_model(ClippedOptimizer("adam"))
        fit(model, epochs=1)
        lines = []
        model.summary(print_fn=lambda line, **_: lines.append(line))
        weights = sum(w.size for w in model.get_weights())
        # Two moments, the counter, the learning rate; of the wrapper four scalars, three reasons,
        # twenty names, and the history with its count.
        expected = 2 * weights + 2 + 4 + 3 + 20 + 40_000 + 1
        assert any("Optimizer params" in line and f"{expected:,} " in line for line in lines)


class TestThresholdDuringFit:
    def test_assigned_in_a_callback_of_a_compiled_fit(self):
        weights = []

        class Assign(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                weights.append(self.model.get_weights())
                if batch == 1:
                    self.model.optimizer.max_norm = 0.5

        model = make_model(ClippedOptimizer(keras.optimizers.SGD(1.0), 0.0))
        fit(model, epochs=1, callbacks=[Assign()])
        assert_identical(weights[1], weights[0])
        step = [b - a for a, b in zip(weights[1], weights[2], strict=True)]
        norm = np.sqrt(sum(np.sum(np.square(s, dtype=np.float64)) for s in step))
        assert norm == pytest.approx(0.5, rel=1e-5)

    def test_schedule(self):
        thresholds = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.0, 0.5])
        model = make_model(ClippedOptimizer(keras.optimizers.SGD(1.0), thresholds))
        inputs, targets = data()
        seen = [model.get_weights()]
        for i in range(3):
            model.train_on_batch(inputs[8 * i : 8 * i + 8], targets[8 * i : 8 * i + 8])
            seen.append(model.get_weights())
        assert_identical(seen[2], seen[0])  # steps 0 and 1 have threshold 0
        assert not np.array_equal(seen[3][0], seen[2][0])


class TestCallbacks:
    def test_learning_rate_scheduler_and_plateau(self):
        rates = {}
        for name, model in zip(("bare", "wrapped"), both(maker("SGD")), strict=True):
            schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
            plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.1, patience=1, min_delta=1e9)
            history = fit(model, epochs=4, callbacks=[schedule, plateau])
            rates[name] = history.history["learning_rate"]
        assert rates["wrapped"] == rates["bare"]
        assert rates["bare"][-1] < 0.05 / 16

    @pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
    def test_swap_ema_weights(self, policy):
        keras.config.set_dtype_policy(policy)
        bare, wrapped = both(maker("SGD", use_ema=True, ema_momentum=0.9))
        for model in (bare, wrapped):
            fit(model, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
        if policy == "float32":
            assert_identical(wrapped.get_weights(), bare.get_weights())
        assert_close(wrapped.get_weights(), bare.get_weights(), rtol=1e-3)

    def test_model_checkpoint_and_backup(self, tmp_path):
        class Interrupt(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    raise KeyboardInterrupt

        whole, first, second = (make_model(ClippedOptimizer("adam", ACTIVE)) for _ in range(3))
        fit(whole, epochs=4)
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
        backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
        with pytest.raises(KeyboardInterrupt):
            fit(first, epochs=4, callbacks=[*backup, checkpoint, Interrupt()])
        fit(second, epochs=4, callbacks=backup)
        assert_identical(second.get_weights(), whole.get_weights())
        loaded = keras.models.load_model(tmp_path / "2.keras")
        assert int(keras.ops.convert_to_numpy(loaded.optimizer.iterations)) == 12

    def test_early_stopping_and_csv(self, tmp_path):
        model = make_model(ClippedOptimizer("sgd"))
        stopping = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=1e9)
        logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        assert len(fit(model, epochs=9, callbacks=[stopping, logger]).epoch) == 2

    @pytest.mark.skipif(backend_is != "tensorflow", reason="the callback writes with TensorFlow")
    def test_tensorboard(self, tmp_path):
        model = make_model(ClippedOptimizer("adam"))
        fit(model, callbacks=[keras.callbacks.TensorBoard(tmp_path, update_freq=1)])
        assert list(tmp_path.rglob("events.out.tfevents.*"))


class TestOwnLoops:
    @pytest.mark.skipif(backend_is != "tensorflow", reason="GradientTape is TensorFlow's")
    @pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
    def test_gradient_tape(self, jit_compile):
        import tensorflow as tf

        inputs, targets = data()
        model = make_model()
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), ACTIVE)

        def step():
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(inputs) - targets))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return gradients

        before = model.get_weights()
        optimizer.build(model.trainable_variables)
        run = step if jit_compile is None else tf.function(step, jit_compile=jit_compile)
        gradients = run()
        moved = [b - a for b, a in zip(before, model.get_weights(), strict=True)]
        norm = float(tf.linalg.global_norm(gradients))
        assert norm > ACTIVE
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)
        assert_close(moved, [g.numpy() * ACTIVE / norm for g in gradients], rtol=1e-5)

    @pytest.mark.skipif(backend_is != "tensorflow", reason="TensorFlow variables")
    def test_tensorflow_variables(self):
        import tensorflow as tf

        variable = tf.Variable([1.0, 2.0])
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), 0.5)
        returned = optimizer.apply_gradients([(tf.constant([3.0, 4.0]), variable)])
        np.testing.assert_allclose(variable.numpy(), [0.7, 1.6], rtol=1e-6)
        assert int(returned) == 1

    @pytest.mark.skipif(backend_is != "jax", reason="stateless_apply in jit is JAX's loop")
    def test_stateless_apply(self):
        import jax

        variables, expected = make_variables(), make_variables()
        optimizer = ClippedOptimizer("adam", ACTIVE)
        optimizer.build(variables)
        state = [v.value for v in optimizer.variables]
        weights = [v.value for v in variables]
        before = values(optimizer.variables)
        for gradients in gradient_stream(3):
            weights, state = jax.jit(optimizer.stateless_apply)(
                state, as_tensors(gradients), weights
            )
        assert_identical(values(optimizer.variables), before)  # stateless: nothing moved
        apply_all(ClippedOptimizer("adam", ACTIVE), expected, gradient_stream(3))
        assert_close([np.array(w) for w in weights], values(expected))

    @pytest.mark.skipif(backend_is != "torch", reason="a torch loop")
    def test_torch_loop(self):
        import torch

        inputs, targets = as_tensors(data())
        model = make_model()
        before = model.get_weights()
        optimizer = ClippedOptimizer(keras.optimizers.SGD(1.0), ACTIVE)
        torch.mean(torch.square(model(inputs) - targets)).backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        parameters = [torch.zeros_like(g, requires_grad=True) for g in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_variables)
        norm = torch.nn.utils.clip_grad_norm_(parameters, ACTIVE)
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(float(norm), rel=1e-6)
        moved = [b - a for b, a in zip(before, model.get_weights(), strict=True)]
        assert_close(moved, [p.grad.cpu().numpy() for p in parameters], rtol=1e-5)

    @pytest.mark.skipif(backend_is == "jax", reason="a JAX train_step is stateless")
    def test_custom_train_step(self):
        class Custom(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(1, kernel_initializer="ones")

            def call(self, inputs):
                return self.dense(inputs)

            def train_step(self, batch):
                inputs, targets = batch
                if backend_is == "torch":
                    self.zero_grad()
                    loss = self.compute_loss(y=targets, y_pred=self(inputs, training=True))
                    loss.backward()
                    gradients = [v.value.grad for v in self.trainable_variables]
                    import torch

                    with torch.no_grad():
                        self.optimizer.apply(gradients, self.trainable_variables)
                    return {"loss": loss}
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = self.compute_loss(y=targets, y_pred=self(inputs, training=True))
                gradients = tape.gradient(loss, self.trainable_variables)
                self.optimizer.apply(gradients, self.trainable_variables)
                return {"loss": loss}

        results = []
        for optimizer in (
            keras.optimizers.SGD(0.1, global_clipnorm=ACTIVE),
            ClippedOptimizer(keras.optimizers.SGD(0.1), ACTIVE),
        ):
            model = Custom()
            model.compile(optimizer, loss="mse")
            fit(model)
            results.append(model.get_weights())
        assert_close(results[1], results[0], rtol=1e-5)


class TestAttributes:
    def test_those_of_the_inner_optimizer_are_reachable(self):
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.01, beta_1=0.8, weight_decay=0.5))
        assert optimizer.beta_1 == 0.8
        assert optimizer.weight_decay == 0.5
        assert optimizer.use_ema is False
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = optimizer.no_such_thing

    def test_setting_them_reaches_the_inner_optimizer(self):
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.01))
        optimizer.beta_1, optimizer.weight_decay, optimizer.learning_rate = 0.7, 0.1, 0.5
        inner = optimizer.inner_optimizer
        assert (inner.beta_1, inner.weight_decay, float(inner.learning_rate.numpy())) == (
            0.7,
            0.1,
            0.5,
        )

    def test_iterations_and_variables(self):
        optimizer = ClippedOptimizer("adam")
        variables = make_variables()
        apply_all(optimizer, variables, gradient_stream(3))
        assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 3
        names = [v.path for v in optimizer.variables]
        assert len(set(names)) == len(names)
        inner = optimizer.inner_optimizer.variables
        assert names[: len(inner)] == [v.path for v in inner]
        own = [v.name for v in optimizer.variables[len(inner) :]]
        assert own == [
            "max_norm",
            "grad_norm",
            "skipped_steps",
            "zeroed_steps",
            "skips_in_a_row",
            "nonfinite_variables",
            "history",
            "history_updates",
        ]

    def test_exclude_from_weight_decay(self):
        bare, wrapped = make_variables(), make_variables()
        one = keras.optimizers.AdamW(0.1, weight_decay=0.5)
        other = ClippedOptimizer(keras.optimizers.AdamW(0.1, weight_decay=0.5), 1e30)
        for optimizer, variables in ((one, bare), (other, wrapped)):
            optimizer.exclude_from_weight_decay(var_names=["bias"])
            apply_all(optimizer, variables, gradient_stream(2))
        assert_identical(values(wrapped), values(bare))

    def test_set_weights(self):
        source, target = ClippedOptimizer("adam", 0.1), ClippedOptimizer("adam", 0.9)
        apply_all(source, make_variables(), gradient_stream(2))
        target.build(make_variables())
        target.set_weights(values(source.variables))
        assert_identical(values(target.variables), values(source.variables))
        with pytest.raises(ValueError, match=r"needs one value for each of the 18 variables"):
            target.set_weights([1.0])

    def test_built_inner_optimizer_goes_on(self):
        whole, resumed = make_variables(), make_variables()
        stream = gradient_stream(4)
        apply_all(keras.optimizers.Adam(0.1), whole, stream)
        inner = keras.optimizers.Adam(0.1)
        apply_all(inner, resumed, stream[:2])
        optimizer = ClippedOptimizer(inner, 1e30)
        for gradients in stream[2:]:
            optimizer.apply(as_tensors(gradients))
        assert_identical(values(resumed), values(whole))

    def test_empty_list_of_gradients_does_nothing(self):
        optimizer = ClippedOptimizer("sgd")
        variables = make_variables()
        optimizer.build(variables)
        optimizer.apply([], variables)
        assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0


class TestSerialization:
    def test_keras_serialize_and_get(self):
        optimizer = ClippedOptimizer(keras.optimizers.Adam(0.25, beta_1=0.8), 0.1, name="mine")
        config = keras.optimizers.serialize(optimizer)
        assert config["registered_name"] == "keras_clip>ClippedOptimizer"
        for again in (keras.optimizers.deserialize(config), keras.optimizers.get(config)):
            assert type(again) is ClippedOptimizer
            assert (again.name, again.beta_1, again.max_norm) == ("mine", 0.8, 0.1)
            assert keras.optimizers.serialize(again) == config

    def test_from_config_leaves_its_input_alone(self):
        config = ClippedOptimizer("adam").get_config()
        original = copy.deepcopy(config)
        ClippedOptimizer.from_config(config)
        assert config == original

    def test_config_of_an_inner_optimizer(self):
        config = keras.optimizers.serialize(keras.optimizers.Adam(0.25))
        original = copy.deepcopy(config)
        inner = ClippedOptimizer(config).inner_optimizer
        assert isinstance(inner, keras.optimizers.Adam)
        assert inner.get_config() == original["config"]
        assert config == original

    def test_config_holds_the_threshold_as_it_is_now(self):
        optimizer = ClippedOptimizer("sgd", 0.1)
        optimizer.build(make_variables())
        optimizer.max_norm = 0.3
        again = ClippedOptimizer.from_config(optimizer.get_config())
        assert again.max_norm == 0.3

    def test_observe_only_survives(self, tmp_path):
        model = make_model(ClippedOptimizer("sgd", float("inf")))
        fit(model)
        model.save(tmp_path / "m.keras")
        assert (
            float(keras.models.load_model(tmp_path / "m.keras").optimizer.max_norm.numpy())
            == np.inf
        )

    def test_clone_model_pickle_and_deepcopy(self):
        model = make_model(ClippedOptimizer("adam", 0.4))
        fit(model)
        keras.models.clone_model(model).compile(ClippedOptimizer("adam"), loss="mse")
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert_identical(again.get_weights(), model.get_weights())
            assert_identical(values(again.optimizer.variables), values(model.optimizer.variables))

    @pytest.mark.parametrize("kind", ["m.weights.h5", "m.keras"])
    def test_the_bare_optimizers_file_and_the_wrappers_are_one(self, kind, tmp_path):
        """Moments and counters load into the right variables, in either direction."""
        for first, second in [("adam", ClippedOptimizer), (ClippedOptimizer, "adam")]:
            saved, loaded = (
                make_model(make if isinstance(make, str) else make("adam"))
                for make in (first, second)
            )
            fit(saved)
            loaded.optimizer.build(loaded.trainable_variables)
            if kind.endswith("keras"):
                saved.save(tmp_path / kind)
                inner = keras.models.load_model(tmp_path / kind).optimizer
            else:
                saved.save_weights(tmp_path / kind)
                loaded.load_weights(tmp_path / kind)
                inner = loaded.optimizer
            expected, found = (
                values(getattr(o, "inner_optimizer", o).variables) for o in (saved.optimizer, inner)
            )
            assert_identical(found, expected)

    def test_a_file_of_another_optimizer_is_not_loaded_silently(self, tmp_path):
        for saved, loaded in [
            ("nadam", ClippedOptimizer("adam")),
            (ClippedOptimizer("adam"), "sgd"),
        ]:
            other, model = make_model(saved), make_model(loaded)
            fit(other)
            other.save_weights(tmp_path / "m.weights.h5")
            model.optimizer.build(model.trainable_variables)
            with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
                model.load_weights(tmp_path / "m.weights.h5")
