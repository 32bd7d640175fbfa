"""Changes of variables on torch: on an accelerator a few calls handle all variables."""

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="functions of torch")

SHAPES = [(3, 4), (5,), (), (2, 2, 2)]
DTYPES = ["float32", "float64", "float16", "mixed"]
SPECIAL = [-0.0, np.inf, -np.inf, np.nan, 3e38]


@pytest.fixture(params=[False, True], ids=["processor", "accelerator"])
def as_on(request, monkeypatch):
    from keras_clip._seam.torch import host

    if request.param:
        monkeypatch.setattr(host, "can_read", lambda tensor: False)


def make(dtype, seed=0):
    """Return variables, and their values before as arrays."""
    generator = np.random.default_rng(seed)
    names = ["float32", "float16", "float64", "float32"]
    dtypes = names if dtype == "mixed" else [dtype] * len(SHAPES)
    before = [generator.normal(size=s).astype(d) for s, d in zip(SHAPES, dtypes, strict=True)]
    changes = [generator.normal(size=s).astype(d) for s, d in zip(SHAPES, dtypes, strict=True)]
    variables = [
        keras.Variable(old + change, dtype=old.dtype.name)
        for old, change in zip(before, changes, strict=True)
    ]
    return variables, before


def shrink(variables, before, factors, coarse=1.0):
    import torch

    from keras_clip._seam import backend

    with torch.no_grad():
        tensors = [torch.as_tensor(old) for old in before]
        pairs = [(torch.tensor(coarse), torch.tensor(factor)) for factor in factors]
        backend.shrink_changes(variables, tensors, pairs)


@pytest.mark.usefixtures("as_on")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factors", [[0.25] * 4, [1e-6] * 4, [0.7, 1.0, 1e-3, 0.0]], ids=str)
def test_a_change_is_multiplied(dtype, factors):
    variables, before = make(dtype)
    now = [variable.numpy() for variable in variables]
    shrink(variables, before, factors)
    for variable, end, start, factor in zip(variables, now, before, factors, strict=True):
        wide = start.astype("float64")
        expected = wide + float(np.float32(factor)) * (end.astype("float64") - wide)
        resolution = np.finfo(start.dtype).eps * np.maximum(np.abs(wide), np.abs(end))
        assert (np.abs(variable.numpy() - expected) <= 2 * resolution).all()


@pytest.mark.usefixtures("as_on")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_product_below_the_range_is_applied_as_two_factors(dtype):
    variables = [keras.Variable(np.array([1.0, 3e38], dtype), dtype=dtype)]
    shrink(variables, [np.ones(2, dtype)], [2.0**-70], coarse=2.0**-60)
    np.testing.assert_allclose(variables[0].numpy(), [1.0, 1.0 + 3e38 * 2.0**-130], rtol=1e-6)


@pytest.mark.usefixtures("as_on")
def test_a_factor_of_one_keeps_every_bit():
    before = [np.float32([0.5, 1.0, 2.0, 3.0, -3e38]), np.ones(5, "float32")]
    variables = [keras.Variable(np.float32(SPECIAL)) for _ in before]
    shrink(variables, before, [1.0, 0.5])
    expected = np.float32(SPECIAL)
    np.testing.assert_array_equal(variables[0].numpy().view("int32"), expected.view("int32"))
    assert not np.array_equal(variables[1].numpy(), expected)


@pytest.mark.usefixtures("as_on")
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [*((dtype, 1.0) for dtype in DTYPES), *((d, s) for d in DTYPES[:2] for s in (1e-30, 1e30))],
)
def test_norm_of_changes(dtype, scale):
    import torch

    from keras_clip._seam import backend

    variables, before = make(dtype)
    now = [torch.as_tensor(variable.numpy() * scale) for variable in variables]
    old = [torch.as_tensor(value * scale) for value in before]
    pairs = zip(now, old, strict=True)
    wide = [(one.double() - other.double()).numpy() for one, other in pairs]
    expected = np.sqrt(sum(np.sum(np.square(difference)) for difference in wide))
    wider = "float64" if dtype in ("float64", "mixed") else "float32"
    with torch.no_grad():
        found = float(backend.change_norm(now, old, wider))
    assert found == pytest.approx(expected, rel=1e-6 if dtype != "float16" else 1e-3)


def test_calls_do_not_grow_by_many_for_each_variable(monkeypatch):
    """A step on an accelerator waits for the calls, not for the arithmetic."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from keras_clip import ClippedOptimizer
    from keras_clip._seam.torch import host

    monkeypatch.setattr(host, "can_read", lambda tensor: False)

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            del types
            self.calls += 1
            return function(*args, **(kwargs or {}))

    def calls(count, **options):
        variables = [keras.Variable(np.ones(2, "float32")) for _ in range(count)]
        optimizer = ClippedOptimizer(keras.optimizers.SGD(0.1), **options)
        optimizer.build(variables)
        gradients = [torch.ones(2) for _ in variables]
        with Count() as counted:
            optimizer.apply(gradients, variables)
        return counted.calls

    def growth(**options):
        return calls(50, **options) - calls(10, **options)

    # For each a selection, and calls that allocate the copies.
    assert growth(max_update_ratio=0.01) - growth() <= 2 * 40
