"""The public names, and every example in a docstring."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import keras_clip

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(keras_clip.__path__, "keras_clip.")
    # Examples that import a framework belong to that backend only.
    if not re.search(r"\._seam\.(tensorflow|jax|torch)\.|__main__", module.name)
)


def test_public_names():
    assert sorted(keras_clip.__all__) == [
        "AdaGC",
        "AdaptiveGradientClipping",
        "Adoption",
        "AutoClip",
        "BatchKeeper",
        "Chain",
        "ClipByBlockRMS",
        "ClipByGlobalNorm",
        "ClipByNorm",
        "ClipByValue",
        "ClipMonitor",
        "Clipped",
        "ClippedOptimizer",
        "Clipper",
        "ClipperMap",
        "Diagnosis",
        "Finding",
        "NonFiniteGradientError",
        "ObserveOnly",
        "Outliers",
        "RaiseOnNonFinite",
        "RollBack",
        "Suggestion",
        "Threshold",
        "TooManyRollBacksError",
        "TooManySkipsError",
        "Update",
        "UpdateClipping",
        "WeightClipping",
        "ZClip",
        "adopt",
        "clip_by_global_norm",
        "clippers",
        "diagnose",
        "global_norm",
        "plot_clipping",
        "plot_variables",
        "suggest_max_norm",
    ]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


ERRORS = {"NonFiniteGradientError", "TooManyRollBacksError", "TooManySkipsError"}


@pytest.mark.parametrize("name", sorted(set(keras_clip.__all__) - {"clippers", "Update"} - ERRORS))
def test_public_docstrings_are_complete(name):
    text = getattr(keras_clip, name).__doc__
    for part in ("Raises:", "Example"):
        assert part in text
    assert re.search(r">>> ", text)


def test_version_is_the_changelogs():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{keras_clip.__version__}]" in changelog or "## [Unreleased]" in changelog
    assert re.fullmatch(r"\d+\.\d+\.\d+", keras_clip.__version__)
