"""Patterns find variables by their whole path."""

import keras
import pytest

from keras_clip import AdaptiveGradientClipping, ClippedOptimizer, ClipperMap
from keras_clip.layers.paths import PathPatterns
from tests.support.gradient_stream import apply_all, assert_identical
from tests.support.models import data, fit, make_model

PATHS = ["dense/kernel", "dense/bias", "dense_1/kernel"]


class Named:
    """A variable with nothing but a path."""

    def __init__(self, path):
        self.path = path


def matched(patterns, paths=PATHS, **options):
    variables = [Named(path) for path in paths]
    found = PathPatterns("axes", patterns, **options)
    found.build(variables)
    found.check_all_used()
    return [found.of(variable) for variable in variables]


def test_whole_paths_only():
    assert matched(["dense/kernel"]) == ["dense/kernel", None, None]
    assert matched([".*/kernel"]) == [".*/kernel", None, ".*/kernel"]
    assert matched([]) == [None] * 3


def test_a_path_itself_goes_before_patterns():
    assert matched([".*kernel", "dense/kernel"]) == ["dense/kernel", None, ".*kernel"]
    # In a path, no character is special.
    assert matched(["a+1/kernel"], ["a+1/kernel"]) == ["a+1/kernel"]


def test_two_patterns_for_one_path():
    with pytest.raises(ValueError, match=r"axes .* variable 'dense/kernel'.*'dense/\.\*', '\.\*k"):
        matched(["dense/.*", ".*kernel"])
    assert matched(["dense/.*", ".*kernel"], may_overlap=True) == [
        "dense/.*",
        "dense/.*",
        ".*kernel",
    ]


def test_a_pattern_for_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"axes .*match no variable: \['kernel'\].*dense_1/kernel"):
        matched([".*bias", "kernel"])


def test_a_pattern_for_nothing_is_no_obstacle_to_building():
    patterns = PathPatterns("axes", ["kernel"])
    patterns.build([])
    patterns.build([Named("dense/bias")])
    with pytest.raises(ValueError, match=r"no variable: \['kernel'\].*\['dense/bias'\]"):
        patterns.check_all_used()
    patterns.build([Named("kernel")])
    patterns.check_all_used()


def test_a_pattern_whose_paths_are_named_exactly_is_used():
    assert matched(["a.*", "a/b"], ["a/b"]) == ["a/b"]


def test_no_regular_expression():
    with pytest.raises(ValueError, match=r"axes has the pattern '\(', .*not a regular expression"):
        PathPatterns("axes", ["("])
    with pytest.raises(TypeError, match=r"axes must name variables by str.*Received: 3"):
        PathPatterns("axes", [3])


def test_variables_of_a_build_before_are_forgotten():
    patterns, variable = PathPatterns("axes", ["a"]), Named("a")
    patterns.build([variable])
    assert patterns.of(variable) == "a"
    patterns.build([])
    assert patterns.of(variable) is None


WITH_PATTERNS = {
    "clipper_map": lambda pattern: {"clipper": ClipperMap("clip_by_norm", {pattern: None})},
    "max_weight": lambda pattern: {"max_weight": {pattern: 1.0}},
    "axes": lambda pattern: {"clipper": AdaptiveGradientClipping(axes={pattern: 0})},
    "exclude": lambda pattern: {"clipper": AdaptiveGradientClipping(exclude=pattern)},
}


@pytest.fixture(params=WITH_PATTERNS)
def argument(request):
    return request.param


def clipped(argument, pattern):
    return ClippedOptimizer("sgd", **WITH_PATTERNS[argument](pattern))


@pytest.mark.parametrize("how", ["fit", "by hand"])
def test_a_misspelt_pattern_raises_at_training(argument, how):
    """The check waits: Keras builds optimizers with the current variables, or with none."""
    optimizer = clipped(argument, ".*hiden/kernel")
    model = make_model(optimizer)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=rf"{argument} has patterns that match no variable.*hiden"):
        if how == "by hand":
            apply_all(optimizer, model.trainable_variables, [model.get_weights()])
        else:
            fit(model, epochs=1)


def test_models_load_from_legacy_files(argument, tmp_path):
    model = make_model()
    # From such a file, Keras does not read a loss that is only a name.
    model.compile(clipped(argument, ".*hidden/kernel"), loss=keras.losses.MeanSquaredError())
    fit(model)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    inputs = data()[0]
    assert_identical([loaded.predict(inputs, verbose=0)], [model.predict(inputs, verbose=0)])


def test_configs_build_without_the_variables_that_are_frozen_by_then(argument):
    config = clipped(argument, ".*hidden/kernel").get_config()
    model = make_model()
    model.get_layer("hidden").trainable = False
    optimizer = ClippedOptimizer.from_config(config)
    optimizer.build(model.trainable_variables)
    model.get_layer("hidden").trainable = True
    optimizer = ClippedOptimizer.from_config(optimizer.get_config())
    apply_all(optimizer, model.trainable_variables, [model.get_weights()])
