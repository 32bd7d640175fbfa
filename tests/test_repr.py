"""`repr`: the call that makes an equal object, in one line."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import (
    AdaptiveGradientClipping,
    AutoClip,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ClippedOptimizer,
    Clipper,
    ObserveOnly,
    UpdateClipping,
    WeightClipping,
)
from tests.support.family import whole_family
from tests.support.optimizers import halving_schedule, keras_has

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def warm_up(step):
    return 1.0


PUBLIC = {
    "warm_up": warm_up,
    **{name: getattr(keras.optimizers, name) for name in dir(keras.optimizers)},
    **{name: getattr(keras.optimizers.schedules, name) for name in ("ExponentialDecay",)},
    **{name: getattr(keras_clip, name) for name in keras_clip.__all__},
}
OBJECTS = {
    "ClipByNorm(max_norm=0.1)": lambda: ClipByNorm(0.1),
    "ClipByNorm(max_norm=1.0)": ClipByNorm,
    "ClipByNorm(max_norm=warm_up)": lambda: ClipByNorm(warm_up),
    "ClipByGlobalNorm(max_norm=float('inf'))": lambda: ClipByGlobalNorm(float("inf")),
    "ClipByGlobalNorm(max_norm=2.0, norm_type=float('inf'))": lambda: ClipByGlobalNorm(
        2, float("inf")
    ),
    "ClipByGlobalNorm(max_norm=ExponentialDecay(0.05, decay_steps=4, decay_rate=0.5))": (
        lambda: ClipByGlobalNorm(halving_schedule())
    ),
    "ClipByValue(max_value=[-0.1, 1e+300])": lambda: ClipByValue((-0.1, 1e300)),
    "Chain([ObserveOnly(AutoClip(percentile=20.0, history_size=9)), ClipByNorm(max_norm=1.0)])": (
        lambda: keras_clip.Chain([ObserveOnly(AutoClip(20, 9)), "clip_by_norm"])
    ),
    "AdaptiveGradientClipping(clipping=0.02, axes={'a': [0]}, exclude=['b'])": (
        lambda: AdaptiveGradientClipping(0.02, axes={"a": 0}, exclude="b")
    ),
    "UpdateClipping(max_update_ratio=0.003, per_variable=True)": lambda: UpdateClipping(
        per_variable=True
    ),
    "WeightClipping(max_weight=0.5)": lambda: WeightClipping(0.5),
    "ClippedOptimizer(Adam(learning_rate=0.001), max_norm=1.0)": lambda: ClippedOptimizer("adam"),
    "ClippedOptimizer(SGD(learning_rate=0.1, momentum=0.9, name='mine'), clipper="
    "AutoClip(percentile=10.0), nonfinite='skip', max_weight={'a': WeightClipping("
    "max_weight=0.2), 'default': None}, name='outer')": lambda: ClippedOptimizer(
        SGD(0.1, momentum=0.9, name="mine"),
        clipper="auto_clip",
        nonfinite="skip",
        max_weight={"a": 0.2, "default": None},
        name="outer",
    ),
    "ClippedOptimizer(Adam(learning_rate=0.001), clipper=ClipByGlobalNorm(max_norm=1.0, "
    "norm_type=1.0))": lambda: ClippedOptimizer("adam", clipper=ClipByGlobalNorm(1.0, 1.0)),
}


def config_of(made):
    """Without the names that Keras counts up."""
    config = made.get_config()
    if isinstance(made, ClippedOptimizer):
        for named in (config, config["inner_optimizer"]["config"]):
            named["name"] = named["name"].rstrip("_0123456789")
    return config


@pytest.mark.parametrize("text", OBJECTS)
def test_it_is_the_call_that_makes_an_equal_one(text):
    made = OBJECTS[text]()
    assert repr(made) == text
    assert config_of(eval(text, PUBLIC)) == config_of(made)


def test_every_clipper_in_one_line():
    family = whole_family()
    assert "\n" not in repr(family)
    assert eval(repr(family), PUBLIC).get_config() == family.get_config()


@pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
def test_members_of_a_multi_optimizer():
    members = keras.optimizers.OptimizerMap(SGD(), {"a": Adam(0.5)})
    made = ClippedOptimizer(keras.optimizers.MultiOptimizer(members))
    assert repr(made) == (
        "ClippedOptimizer(MultiOptimizer(OptimizerMap(SGD(learning_rate=0.01), optimizer_map="
        "{'a': Adam(learning_rate=0.5)})), max_norm=1.0)"
    )


def test_it_shows_what_was_assigned():
    optimizer = ClippedOptimizer("adam", max_norm=1.0, max_weight=3.0)
    optimizer.build([keras.Variable(np.ones(3, "float32"))])
    optimizer.max_norm, optimizer.max_weight, optimizer.learning_rate = 0.3, 0.7, 0.01
    assert repr(optimizer) == (
        "ClippedOptimizer(Adam(learning_rate=0.01), max_norm=0.3, "
        "max_weight=WeightClipping(max_weight=0.7))"
    )


def test_a_lambda_has_no_name_and_gives_no_warning():
    assert repr(ClipByNorm(lambda step: 1.0)) == "ClipByNorm(max_norm=<lambda>)"


def test_results_show_the_optimizer():
    adoption = keras_clip.adopt(SGD(clipvalue=0.5))
    assert repr(adoption).startswith(
        "Adoption(optimizer=ClippedOptimizer(SGD(learning_rate=0.01), clipper=ClipByValue("
        "max_value=0.5), sum_repeated_rows=True), changes="
    )


@pytest.mark.parametrize(
    "read",
    [
        lambda: keras_clip.suggest_max_norm({"grad_norm": [1.0, 1.2] * 50}),
        lambda: keras_clip.diagnose({"grad_norm": [0.0] * 50}),
    ],
)
def test_what_a_record_says_can_be_typed_back(read):
    assert eval(repr(read()), PUBLIC) == read()


class WithoutConfig(Clipper):
    def clip(self, update):
        return update.gradients

    def get_config(self):
        raise NotImplementedError


def test_it_never_raises():
    assert "WithoutConfig object at 0x" in repr(
        ClippedOptimizer("sgd", clipper=WithoutConfig()).clipper
    )


@pytest.mark.skipif(keras.config.backend() == "torch", reason="torch traces no function here")
def test_in_a_trace_values_have_no_number():
    optimizer = ClippedOptimizer("sgd")
    optimizer.build([keras.Variable(np.ones(3, "float32"))])
    seen = []

    def step(x):
        seen.append(repr(optimizer))
        return x

    if keras.config.backend() == "jax":
        import jax

        jax.jit(step)(1.0)
    else:
        import tensorflow as tf

        tf.function(step)(1.0)
    assert seen[0].startswith(("ClippedOptimizer(SGD(", "<keras_clip.optimizer.ClippedOptimizer"))
