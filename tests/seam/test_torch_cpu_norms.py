"""On a CPU torch computes norms of short tensors whole and of long ones by rows."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import Update
from tests.reference import global_norm as reference

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="how torch adds up is a matter of torch"
)

# Around the length that is cut into rows; odd, prime, a power of two.
LENGTHS = [1, 2_048, 2_049, 65_535, 65_536, 65_537, 99_856, 131_071, 2**20, 2**20 + 2]

# Short and long ones, in disorder.
MIXED = [(32, 64), (7,), (300, 300), (32, 64), (7,), (), (251, 263), (32, 64), (7,), (32, 64)]
MANY = [(32, 64)] * 150 + [(3,)] * 5


def tensors(arrays):
    import torch

    return [torch.from_numpy(np.array(array)) for array in arrays]


def draw(shapes, dtypes=("float32",)):
    generator = np.random.default_rng(0)
    return [
        np.asarray(generator.normal(size=shape) * 2.0**place, dtypes[place % len(dtypes)])
        for place, shape in enumerate(shapes[:20])
    ] + [np.asarray(generator.normal(size=shape), "float32") for shape in shapes[20:]]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_entry_counts_once(length):
    # Sums of ones are exact up to 16 million.
    norm = keras_clip.global_norm(tensors([np.ones(length, "float32")]))
    assert round(float(norm) ** 2) == length


@pytest.mark.parametrize("shapes", [MIXED, MANY], ids=["mixed", "many"])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
@pytest.mark.parametrize("dtypes", [("float32",), ("float32", "float64")], ids="-".join)
def test_global_norm(shapes, scale, dtypes):
    arrays = [(scale * array).astype(array.dtype) for array in draw(shapes, dtypes)]
    norm = float(keras_clip.global_norm(tensors(arrays)))
    assert norm == pytest.approx(reference.global_norm(arrays), rel=3e-7)


@pytest.mark.parametrize("shapes", [MIXED, MANY, [(4,)] * 4, [(70_000,)] * 3])
def test_each_norm_is_in_its_place(shapes):
    arrays = draw(shapes)
    update = Update(tensors(arrays), [], 0)
    expected = [np.linalg.norm(array.astype("float64").ravel()) for array in arrays]
    np.testing.assert_allclose(update.norms, expected, rtol=3e-7)


def test_a_tensor_that_is_not_contiguous():
    import torch

    array = np.random.default_rng(0).normal(size=(400, 300)).astype("float32")
    transposed = torch.from_numpy(array).T[1:]
    norm = float(keras_clip.global_norm([transposed]))
    assert norm == pytest.approx(np.linalg.norm(array[:, 1:].astype("float64")), rel=3e-7)


def test_images_whose_channels_come_last():
    import torch

    arrays = draw([(2, 3, 4, 4)] * 4)
    images = [tensor.to(memory_format=torch.channels_last) for tensor in tensors(arrays)]
    norm = float(keras_clip.global_norm(images))
    assert norm == pytest.approx(reference.global_norm(arrays), rel=3e-7)


def test_long_sums_are_exact():
    array = np.full(2**24, 0.1, "float32")
    expected = float(np.float32(0.1)) * 2**12
    assert float(keras_clip.global_norm(tensors([array]))) == pytest.approx(expected, rel=1e-6)


def test_norms_are_differentiable():
    import torch

    arrays = [*draw(MIXED[:8]), np.ones(70_000, "float32")]
    gradients = [tensor.requires_grad_() for tensor in tensors(arrays)]
    keras_clip.global_norm(gradients).backward()
    total = reference.global_norm(arrays)
    for gradient, array in zip(gradients, arrays, strict=True):
        expected = torch.tensor(array / np.float32(total))
        torch.testing.assert_close(gradient.grad, expected)
