"""Clippers that limit each norm: how often they read the gradients, and the record."""

import numpy as np
import pytest

from keras_clip import AdaGC, ClipByBlockRMS, ClipByNorm, ClippedOptimizer, Update
from keras_clip.clippers import update as update_module
from tests.reference import global_norm as reference
from tests.support.gradient_stream import as_tensors, gradient_stream, make_variables

CLIPPERS = {
    "ClipByNorm": lambda: ClipByNorm(0.1),
    "ClipByBlockRMS": lambda: ClipByBlockRMS(0.01),
    "AdaGC": lambda: AdaGC(max_norm=0.1),
}
EACH = pytest.mark.parametrize("make", CLIPPERS.values(), ids=CLIPPERS)


@EACH
def test_the_global_norm_is_that_of_the_norms(make):
    assert make().needs_norms
    arrays = gradient_stream(1)[0]
    update = Update(as_tensors(arrays), make_variables(), 0, needs_norms=True)
    norm = float(np.asarray(update.global_norm))
    assert norm == pytest.approx(reference.global_norm(arrays), rel=1e-6)
    assert "norms" in vars(update)


@EACH
def test_an_update_reads_all_gradients_for_their_norms_alone(make, monkeypatch):
    read = []

    def norm_of_tensors(tensors):
        read.append(len(tensors))
        return original(tensors)

    original = update_module.norm_of_tensors
    monkeypatch.setattr(update_module, "norm_of_tensors", norm_of_tensors)
    optimizer = ClippedOptimizer("sgd", clipper=make())
    optimizer.apply(as_tensors(gradient_stream(1)[0]), make_variables())
    # The vector of norms, and no gradients before or after the clip.
    assert read == [1]


def test_no_gradients_have_no_norm():
    assert float(np.asarray(Update([], [], 0, needs_norms=True).global_norm)) == 0.0
