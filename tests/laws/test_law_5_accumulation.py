"""Law 5: k micro-batches equal one batch that is k times as large, clipped once."""

import keras
import numpy as np
import pytest

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
from tests.support.optimizers import keras_has, maker

K = 3


def averaged(stream):
    return [
        [
            np.mean(same, axis=0, dtype=np.float64).astype("float32")
            for same in zip(*stream[i : i + K], strict=True)
        ]
        for i in range(0, len(stream), K)
    ]


# The accumulation is the same for all, so one is enough.
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "name",
    ["Adam", *(pytest.param(n, marks=pytest.mark.endurance) for n in ("SGD momentum", "Lamb"))],
)
def test_micro_batches_equal_their_average(name, compiled):
    micro, whole = make_variables(), make_variables()
    accumulating = ClippedOptimizer(maker(name, gradient_accumulation_steps=K)(), 0.7)
    once = ClippedOptimizer(maker(name)(), 0.7)
    stream = gradient_stream(4 * K)
    apply_all(once, whole, averaged(stream))
    if compiled:
        step = compiled_step(accumulating, micro)
        for gradients in stream:
            step(gradients)
    else:
        apply_all(accumulating, micro, stream)
    assert_close(values(micro), values(whole), rtol=2e-6)
    assert int(keras.ops.convert_to_numpy(accumulating.iterations)) == 4


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_grad_norm_rests_on_micro_batches(compiled):
    variables = make_variables()
    optimizer = ClippedOptimizer(maker("Adam", gradient_accumulation_steps=K)(), 0.7)
    stream = gradient_stream(2 * K)
    step = (
        compiled_step(optimizer, variables)
        if compiled
        else lambda g: apply_all(optimizer, variables, [g])
    )
    expected = [0.0, 0.0, *[reference.global_norm(averaged(stream)[0])] * K]
    for gradients, norm in zip(stream, expected, strict=False):
        step(gradients)
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)


def test_threshold_schedule_counts_updates():
    seen = []

    def threshold(step):
        seen.append(step)
        return keras.ops.where(keras.ops.less(step, 1), 1e9, 0.0)

    variables = make_variables()
    optimizer = ClippedOptimizer(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=K), threshold
    )
    apply_all(optimizer, variables, gradient_stream(K))
    after_first = values(variables)
    assert not np.array_equal(after_first[0], values(make_variables())[0])
    apply_all(optimizer, variables, gradient_stream(K))
    assert_identical(values(variables), after_first)
    assert seen


def test_fit():
    micro = make_model(ClippedOptimizer(maker("Adam", gradient_accumulation_steps=2)(), 0.3))
    whole = make_model(ClippedOptimizer(maker("Adam")(), 0.3))
    fit(micro, batch_size=4)
    fit(whole, batch_size=8)
    assert_close(micro.get_weights(), whole.get_weights(), rtol=5e-6)
    assert_close(
        [micro.optimizer.grad_norm.numpy()], [whole.optimizer.grad_norm.numpy()], rtol=5e-6
    )


@pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
class TestMultiOptimizer:
    @staticmethod
    def make(steps=(None, None), max_norm=0.7):
        first, second = (maker("SGD momentum", gradient_accumulation_steps=k)() for k in steps)
        members = keras.optimizers.OptimizerMap(first, {"bias|scale": second})
        return ClippedOptimizer(keras.optimizers.MultiOptimizer(members), max_norm)

    def test_one_norm_over_all_members(self):
        ours, expected = make_variables(), make_variables()
        optimizer = self.make()
        stream = gradient_stream(5)
        apply_all(optimizer, ours, stream)
        apply_all(ClippedOptimizer(maker("SGD momentum")(), 0.7), expected, stream)
        assert_close(values(ours), values(expected))
        norm = reference.global_norm(stream[-1])
        assert float(optimizer.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)

    @pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
    def test_accumulation(self, compiled):
        micro, whole = make_variables(), make_variables()
        accumulating = self.make((K, K))
        stream = gradient_stream(3 * K + 1)
        apply_all(self.make(), whole, averaged(stream[:-1]))
        step = (
            compiled_step(accumulating, micro)
            if compiled
            else lambda g: apply_all(accumulating, micro, [g])
        )
        for gradients in stream:
            step(gradients)
        assert_close(values(micro), values(whole), rtol=2e-6)
        norm = reference.global_norm(averaged(stream[:-1])[-1])
        assert float(accumulating.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)

    def test_threshold_schedule_counts_updates(self):
        thresholds = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1e9, 0.0])
        variables = make_variables()
        optimizer = self.make((K, K), max_norm=thresholds)
        stream = gradient_stream(2 * K)
        optimizer.build(variables)
        for member in optimizer.optimizers:
            member.momentum = 0.0
        apply_all(optimizer, variables, stream[:K])
        after_first = values(variables)
        assert not np.array_equal(after_first[0], values(make_variables())[0])
        apply_all(optimizer, variables, stream[K:])
        assert_identical(values(variables), after_first)

    def test_members_must_update_together(self):
        with pytest.raises(ValueError, match=r"gradient_accumulation_steps=\[(3, 1|1, 3)\]"):
            self.make((K, None)).build(make_variables())

    def test_members_chosen_by_a_function(self):
        chosen = {}

        def choose(variable):
            kind = variable.name in ("bias", "scale")
            return chosen.setdefault(kind, maker("SGD momentum")())

        ours, expected = make_variables(), make_variables()
        optimizer = ClippedOptimizer(keras.optimizers.MultiOptimizer(choose), 0.7)
        apply_all(optimizer, ours, gradient_stream(3))
        apply_all(self.make(), expected, gradient_stream(3))
        assert_close(values(ours), values(expected))

    def test_clipped_members_have_a_norm_each(self):
        members = [ClippedOptimizer("sgd", 0.7), ClippedOptimizer("sgd", 0.7)]
        mapping = keras.optimizers.OptimizerMap(members[0], {"bias|scale": members[1]})
        optimizer = keras.optimizers.MultiOptimizer(mapping)
        gradients = gradient_stream(1)[0]
        apply_all(optimizer, make_variables(), [gradients])
        for member, indices in zip(members, ([0, 2], [1, 3]), strict=True):
            norm = reference.global_norm([gradients[i] for i in indices])
            assert float(member.grad_norm.numpy()) == pytest.approx(norm, rel=1e-6)

    def test_members_chosen_by_a_function_are_checked_once_they_are_known(self):
        own_clip = keras.optimizers.SGD(clipnorm=0.1)
        for member, message in (
            (own_clip, "clips by itself"),
            (ClippedOptimizer("sgd"), "is a Clip"),
        ):
            chosen = keras.optimizers.MultiOptimizer(lambda variable, member=member: member)
            with pytest.raises(ValueError, match=message):
                ClippedOptimizer(chosen).build(make_variables())

    @pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX tells leaked tracers")
    def test_nothing_of_a_trace_is_kept(self):
        import jax

        optimizer, variables = self.make(), make_variables()
        with jax.checking_leaks():
            compiled_step(optimizer, variables)(gradient_stream(1)[0])

    def test_a_clipped_member_is_refused(self):
        mapping = keras.optimizers.OptimizerMap(ClippedOptimizer("sgd"), {})
        with pytest.raises(ValueError, match="is a ClippedOptimizer"):
            ClippedOptimizer(keras.optimizers.MultiOptimizer(mapping))

    def test_learning_rates_stay_the_members_business(self):
        optimizer = self.make()
        assert not hasattr(optimizer, "learning_rate")
        assert len(optimizer.optimizers) == 2
