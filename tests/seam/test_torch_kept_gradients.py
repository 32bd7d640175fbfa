"""Only gradients that torch keeps as a variable's `.grad` are clipped in place."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import (
    AdaGC,
    AutoClip,
    Chain,
    ClipByBlockRMS,
    ClipByGlobalNorm,
    ClipByNorm,
    ClippedOptimizer,
    ClipperMap,
    ObserveOnly,
    ZClip,
)
from keras_clip.norms import scale_factors
from tests.reference import global_norm as reference
from tests.support.gradient_stream import (
    as_tensors,
    assert_identical,
    gradient_stream,
    make_variables,
    values,
)
from tests.support.models import fit, make_model

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="only torch keeps gradients at the variables"
)

CLIPPERS = {
    "ClipByGlobalNorm": lambda: ClipByGlobalNorm(0.1),
    "p-norm": lambda: ClipByGlobalNorm(0.1, norm_type=1.0),
    "ClipByNorm": lambda: ClipByNorm(0.1),
    "ClipByBlockRMS": lambda: ClipByBlockRMS(0.01),
    "AutoClip": lambda: AutoClip(0.0),
    "ZClip": lambda: ZClip(max_grad_norm=0.1),
    "AdaGC": lambda: AdaGC(max_norm=0.1),
}
EACH_CLIPPER = pytest.mark.parametrize("make", CLIPPERS.values(), ids=CLIPPERS)


class LooksLater(ClipByGlobalNorm):
    """A user's clipper that needs the gradients once more."""

    def clip(self, update):
        clipped = super().clip(update).gradients
        return [(one + other) / 2 for one, other in zip(clipped, update.gradients, strict=True)]


# Clippers that read the gradients after a clip.
LOOK_LATER = {
    "ObserveOnly": lambda: ObserveOnly(ClipByGlobalNorm(0.1)),
    "ObserveOnly(AdaGC)": lambda: ObserveOnly(AdaGC(max_norm=0.1)),
    "Chain": lambda: Chain([ObserveOnly(ClipByGlobalNorm(0.1))]),
    "ClipperMap": lambda: ClipperMap(ClipByGlobalNorm(0.1), {"bias": None}),
    "user's own": lambda: LooksLater(0.1),
}


def numpy_of(tensors):
    return [np.array(tensor.detach()) for tensor in tensors]


def keep(variables, gradients):
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.value.grad = gradient
    return gradients


def train(optimizer, own, variables=None, stream=None):
    """Return weights and last gradients after some steps; with `own`, torch keeps gradients."""
    variables = variables or make_variables()
    for arrays in stream or gradient_stream(4):
        gradients = as_tensors(arrays)
        optimizer.apply(keep(variables, gradients) if own else gradients, variables)
    return values(variables), numpy_of(gradients)


@pytest.fixture(params=["processor", "accelerator"])
def _way(request, monkeypatch):
    """Decide on the host, or not at all, as on an accelerator."""
    from keras_clip._seam.torch import host

    if request.param == "accelerator":
        monkeypatch.setattr(host, "can_read", lambda tensor: False)


@EACH_CLIPPER
@pytest.mark.usefixtures("_way")
def test_the_outcome_is_the_same(make):
    kept = ClippedOptimizer("sgd", clipper=make(), history_size=4)
    given = ClippedOptimizer("sgd", clipper=make(), history_size=4)
    assert_identical(train(kept, own=True)[0], train(given, own=False)[0])
    for column, values_of_it in kept.history.items():
        np.testing.assert_array_equal(values_of_it, given.history[column])


@EACH_CLIPPER
@pytest.mark.usefixtures("_way")
def test_kept_gradients_are_overwritten(make):
    # Four steps: AutoClip has to know a smaller norm before it clips.
    after = train(
        ClippedOptimizer("sgd", clipper=make()), own=True, stream=gradient_stream(4)[::-1]
    )
    assert reference.global_norm(after[1]) < 0.99 * reference.global_norm(gradient_stream(1)[0])


@EACH_CLIPPER
def test_gradients_of_the_caller_are_left_alone(make):
    after = train(ClippedOptimizer("sgd", clipper=make()), own=False)[1]
    assert_identical(after, gradient_stream(4)[-1])


@pytest.mark.parametrize("make", LOOK_LATER.values(), ids=LOOK_LATER)
def test_not_where_somebody_looks_later(make):
    weights, after = train(ClippedOptimizer("sgd", clipper=make()), own=True)
    assert_identical(after, gradient_stream(4)[-1])
    assert_identical(weights, train(ClippedOptimizer("sgd", clipper=make()), own=False)[0])


def shared(variables):
    import torch

    both = torch.full((4,), 3.0)
    return [both, both]


def repeated(variables):
    import torch

    return [torch.full((1,), 3.0).expand(4), torch.full((4,), 3.0)]


def in_a_graph(variables):
    import torch

    weights = [variable.value for variable in variables]
    loss = sum((9.0 * weight**3).sum() for weight in weights)
    return list(torch.autograd.grad(loss, weights, create_graph=True))


@pytest.mark.parametrize("make_gradients", [shared, repeated, in_a_graph])
@pytest.mark.filterwarnings("ignore:Using backward")
def test_not_where_writing_would_show_elsewhere(make_gradients):
    variables = [keras.Variable(np.ones(4), dtype="float32", name=name) for name in "ab"]
    gradients = keep(variables, make_gradients(variables))
    before = numpy_of(gradients)
    ClippedOptimizer("sgd", max_norm=0.1).apply(gradients, variables)
    assert_identical(numpy_of(gradients), before)
    moved = np.concatenate([1.0 - value for value in values(variables)])
    np.testing.assert_allclose(np.linalg.norm(moved), 0.01 * 0.1, rtol=1e-4)


@pytest.mark.parametrize("clipper", [ClipByGlobalNorm(0.1), AdaGC(max_norm=0.1)])
def test_the_gradient_that_is_nan_can_still_be_found(clipper):
    variables = make_variables()
    arrays = gradient_stream(1)[0]
    arrays[1] = np.full_like(arrays[1], np.nan)
    gradients = keep(variables, as_tensors(arrays))
    optimizer = ClippedOptimizer("sgd", clipper=clipper, nonfinite="skip")
    optimizer.apply(gradients, variables)
    assert [bool(np.isnan(g).any()) for g in numpy_of(gradients)].count(True) == 1


def test_the_gradient_that_is_too_large_is_clipped_in_place_too():
    variables = make_variables()
    gradients = keep(variables, as_tensors([1e35 * g for g in gradient_stream(1)[0]]))
    ClippedOptimizer("sgd", max_norm=1e-3).apply(gradients, variables)
    assert reference.global_norm(numpy_of(gradients)) == pytest.approx(1e-3, rel=1e-6)


def test_norms_of_variables_are_those_before_the_clip():
    variables = make_variables()
    optimizer = ClippedOptimizer("sgd", max_norm=0.1)
    optimizer.record_variable_norms(every=1, size=4)
    train(optimizer, own=True, variables=variables)
    recorded = list(optimizer.variable_norms.values())[1:]
    expected = [[np.linalg.norm(g) for g in arrays] for arrays in gradient_stream(4)]
    np.testing.assert_allclose(np.transpose(recorded), expected, rtol=1e-6)


def test_not_in_stateless_apply():
    import torch

    variables = make_variables()
    gradients = keep(variables, as_tensors(gradient_stream(1)[0]))
    optimizer = ClippedOptimizer("sgd", max_norm=0.1)
    optimizer.build(variables)
    state, weights = (
        [v.value.detach().clone() for v in vs] for vs in (optimizer.variables, variables)
    )
    before = [tensor.clone() for tensor in state]
    with torch.no_grad():
        _, after = optimizer.stateless_apply(state, gradients, weights)
    assert_identical(numpy_of(gradients), gradient_stream(1)[0])
    assert_identical(numpy_of(state), numpy_of(before))
    names = [variable.name for variable in optimizer.variables]
    assert int(after[names.index("history_updates")]) == 1


def test_in_fit():
    model = make_model(ClippedOptimizer("sgd", max_norm=1e-3))
    fit(model, epochs=1)
    kept = [variable.value.grad for variable in model.trainable_variables]
    assert reference.global_norm(numpy_of(kept)) == pytest.approx(1e-3, rel=1e-6)


def test_a_sparse_gradient_is_left_alone():
    import torch

    variable = keras.Variable(np.zeros((3, 2)), dtype="float32", name="rows")
    dense = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    variable.value.grad = dense.to_sparse(1)
    clipper = keras_clip.ClipByGlobalNorm(1.0)
    update = keras_clip.Update([variable.value.grad], [variable], 0, may_overwrite=True)
    clipped = clipper.clip(update).gradients
    np.testing.assert_allclose(clipped[0].to_dense(), dense / 5.0, rtol=1e-6)
    np.testing.assert_array_equal(variable.value.grad.to_dense(), dense)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm", [1e-30, 0.3, 7.7, 3e20, 1e38, np.inf, np.nan])
@pytest.mark.parametrize("max_norm", [0.0, 1e-20, 0.1, 1.0, np.nan])
def test_factors_of_numbers_are_those_of_tensors(norm, max_norm, dtype):
    import torch

    tensors = [torch.tensor(number, dtype=getattr(torch, dtype)) for number in (norm, max_norm)]
    if norm <= max_norm:
        return  # nothing is clipped
    numbers = scale_factors.factors_of_numbers(*map(float, tensors), dtype, lambda: 1.5)
    actual = [np.array(number, dtype=dtype) for number in numbers]
    expected = [np.array(factor) for factor in scale_factors.factors(*tensors)]
    if np.isfinite(norm):
        assert_identical(actual, expected)
    else:
        # The first factor turns all into NaN, whatever the factor is.
        assert np.isnan(actual[1]) and np.isnan(expected[1])
