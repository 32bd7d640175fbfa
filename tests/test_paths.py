"""Patterns find variables by their whole path."""

import pytest

from keras_clip.layers.paths import match_paths

PATHS = ["dense/kernel", "dense/bias", "dense_1/kernel"]


def test_whole_paths_only():
    assert match_paths(["dense/kernel"], PATHS, "axes") == ["dense/kernel", None, None]
    assert match_paths([".*/kernel"], PATHS, "axes") == [".*/kernel", None, ".*/kernel"]
    assert match_paths([], PATHS, "axes") == [None] * 3


def test_a_path_itself_goes_before_patterns():
    patterns = [".*kernel", "dense/kernel"]
    assert match_paths(patterns, PATHS, "axes") == ["dense/kernel", None, ".*kernel"]
    # No character of a path is special where the path is meant.
    assert match_paths(["a+1/kernel"], ["a+1/kernel"], "axes") == ["a+1/kernel"]


def test_two_patterns_for_one_path():
    with pytest.raises(ValueError, match=r"axes .* variable 'dense/kernel'.*'dense/\.\*', '\.\*k"):
        match_paths(["dense/.*", ".*kernel"], PATHS, "axes")


def test_a_pattern_for_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"axes .*match no variable: \['kernel'\].*dense_1/kernel"):
        match_paths([".*bias", "kernel"], PATHS, "axes")


def test_a_pattern_whose_paths_are_named_exactly_is_used():
    assert match_paths(["a.*", "a/b"], ["a/b"], "axes") == ["a/b"]


def test_no_regular_expression():
    with pytest.raises(ValueError, match=r"axes has the pattern '\(', .*no regular expression"):
        match_paths(["("], PATHS, "axes")
    with pytest.raises(TypeError, match=r"axes must name variables by str.*Received: 3"):
        match_paths([3], PATHS, "axes")
