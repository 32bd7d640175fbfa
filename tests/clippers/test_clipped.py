"""The record shows the norms that `clip` returns, and measures the others."""

import keras
import numpy as np
import pytest

from keras_clip import (
    AdaGC,
    AutoClip,
    Chain,
    ClipByBlockRMS,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    Clipped,
    ClippedOptimizer,
    Clipper,
    ClipperMap,
    ObserveOnly,
    ZClip,
)
from keras_clip.clippers import clipped as clipped_module
from tests.reference.global_norm import global_norm
from tests.support.gradient_stream import as_tensors, gradient_stream, make_variables

ARRAYS = [2 * gradient for gradient in gradient_stream(1)[0]]
NORM = global_norm(ARRAYS)


def record_of(clipper, **options):
    optimizer = ClippedOptimizer("sgd", clipper=clipper, **options)
    optimizer.apply(as_tensors(ARRAYS), make_variables())
    return {name: column[-1] for name, column in optimizer.history.items() if len(column)}


class Halving(Clipper):
    """A user's clipper that halves, and returns the given norms."""

    def __init__(self, **told):
        self.told = told

    def clip(self, update):
        halved = [gradient / 2 for gradient in update.gradients]
        return Clipped(halved, **self.told) if self.told else halved


def test_a_list_shows_no_threshold_and_its_norm_is_measured():
    record = record_of(Halving())
    assert np.isnan(record["clip_threshold"])
    assert record["clip_scale"] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("threshold", [0.25, np.float32(0.25), "tensor"], ids=str)
def test_a_threshold_alone_leaves_the_norm_to_be_measured(threshold):
    if isinstance(threshold, str):
        threshold = keras.ops.convert_to_tensor(0.25)
    record = record_of(Halving(threshold=threshold))
    assert record["clip_threshold"] == 0.25
    assert record["clip_scale"] == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_norm_is_taken_as_told(is_late):
    norm = keras.ops.convert_to_tensor(NORM * 0.125)
    record = record_of(Halving(norm=(lambda: norm) if is_late else norm))
    assert record["clip_scale"] == pytest.approx(0.125, rel=1e-6)


@pytest.mark.parametrize("before, scale", [(NORM, 0.25), (NORM * 0.125, 0.125)])
def test_the_norm_of_a_scaled_one_is_the_smaller(before, scale):
    told = {"threshold": keras.ops.convert_to_tensor(NORM * 0.25)}
    record = record_of(Halving(**told, norm_before=keras.ops.convert_to_tensor(before)))
    assert record["clip_scale"] == pytest.approx(scale, rel=1e-6)


def unreachable(*arguments):
    raise AssertionError("Something is measured although nobody wants to know.")


CLIPPERS = {
    "list": Halving,
    "norm": lambda: Halving(norm=unreachable),
    "ClipByGlobalNorm": lambda: ClipByGlobalNorm(0.1),
    "ClipByGlobalNorm(norm_type=1)": lambda: ClipByGlobalNorm(0.1, norm_type=1),
    "ClipByNorm": lambda: ClipByNorm(0.1),
    "ClipByBlockRMS": lambda: ClipByBlockRMS(0.01),
    "ClipByValue": lambda: ClipByValue(0.1),
    "AutoClip": AutoClip,
    "ZClip": ZClip,
    "AdaGC": AdaGC,
    "Chain": lambda: Chain([ClipByValue(0.1), ClipByGlobalNorm(0.1)]),
    "ClipperMap": lambda: ClipperMap(ClipByGlobalNorm(0.1)),
    "ObserveOnly": lambda: ObserveOnly(ClipByGlobalNorm(0.1)),
}


@pytest.mark.parametrize("make", CLIPPERS.values(), ids=CLIPPERS)
def test_nothing_is_measured_without_a_record(make, monkeypatch):
    monkeypatch.setattr(clipped_module, "norm_of_tensors", unreachable)
    monkeypatch.setattr(clipped_module, "norm_scaled_to", unreachable)
    assert record_of(make(), history_size=0) == {}


@pytest.mark.parametrize("name", ["ClipByGlobalNorm", "AutoClip", "ObserveOnly"])
def test_one_factor_is_recorded_without_a_measurement(name, monkeypatch):
    monkeypatch.setattr(clipped_module, "norm_of_tensors", unreachable)
    monkeypatch.setattr(clipped_module, "norm_scaled_to", unreachable)
    record_of(CLIPPERS[name]())


@pytest.mark.parametrize("bound, limit", [(0.01, 100.0), (0.01, 0.001), (100.0, 0.001)])
def test_a_chain_shows_the_last_threshold_and_the_norm_at_its_end(bound, limit):
    bounded = [np.clip(array, -bound, bound) for array in ARRAYS]
    record = record_of(Chain([ClipByValue(bound), ClipByGlobalNorm(limit)]))
    assert record["clip_threshold"] == pytest.approx(limit, rel=1e-6)
    expected = min(global_norm(bounded), limit) / NORM
    assert record["clip_scale"] == pytest.approx(expected, rel=2e-6)


def test_a_map_shows_no_threshold_and_its_norm_is_measured():
    record = record_of(ClipperMap(ClipByGlobalNorm(0.1), {".*bias": None}))
    variables = make_variables()
    groups = [[], []]
    for variable, array in zip(variables, ARRAYS, strict=True):
        groups[variable.path.endswith("bias")].append(array)
    expected = np.hypot(min(0.1, global_norm(groups[0])), global_norm(groups[1])) / NORM
    assert all(groups)
    assert np.isnan(record["clip_threshold"])
    assert record["clip_scale"] == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("norm_type, order", [(1.0, 1), (float("inf"), np.inf)])
def test_a_limit_of_another_norm_is_no_threshold_of_the_global_norm(norm_type, order):
    entries = np.concatenate([array.reshape(-1) for array in ARRAYS])
    record = record_of(ClipByGlobalNorm(0.1, norm_type=norm_type))
    assert np.isnan(record["clip_threshold"])
    expected = 0.1 / np.linalg.norm(entries, ord=order)
    assert record["clip_scale"] == pytest.approx(expected, rel=2e-6)


def test_an_observer_shows_the_threshold_of_a_clip_that_is_not_made():
    record = record_of(ObserveOnly(ClipByGlobalNorm(0.25)))
    assert record["clip_threshold"] == 0.25
    assert record["clip_scale"] == 1.0


@pytest.mark.parametrize(
    "kind",
    [
        "ClipByGlobalNorm",
        "ClipByNorm",
        "ClipByBlockRMS",
        "AutoClip",
        "ZClip",
        "AdaGC",
    ],
)
def test_what_a_subclass_makes_of_it_is_measured(kind):
    usual = CLIPPERS[kind]()

    class Halved(type(usual)):
        def clip(self, update):
            return [gradient / 2 for gradient in super().clip(update).gradients]

    halved = Halved.from_config(usual.get_config())
    expected = record_of(usual)["clip_scale"] / 2
    assert record_of(halved)["clip_scale"] == pytest.approx(expected, rel=1e-6)


def test_gradients_of_a_known_norm_are_not_replaced():
    class Careless(ClipByNorm):
        def clip(self, update):
            clipped = super().clip(update)
            clipped.gradients[0] = clipped.gradients[0] / 2
            return clipped

    with pytest.raises(TypeError, match="does not support item assignment"):
        record_of(Careless())


@pytest.mark.parametrize("result", [None, "gradients"])
def test_a_clip_that_returns_no_list_is_told_so(result):
    class Wrong(Clipper):
        def clip(self, update):
            return result

    for clipper in (Wrong(), Chain([Wrong()]), ClipperMap(Wrong()), ObserveOnly(Wrong())):
        with pytest.raises(TypeError, match=f"returns a list of gradients.* {result!r}"):
            record_of(clipper)


@pytest.mark.parametrize("others", [{}, {"threshold": 1.0, "norm": 1.0}], ids=str)
def test_a_norm_before_comes_with_the_threshold_alone(others):
    with pytest.raises(ValueError, match=r"norm_before .* Received: threshold="):
        Clipped([], norm_before=keras.ops.ones(()), **others)
