"""On a CPU JAX clips in a loop of at most one turn, elsewhere in a branch: both agree."""

import keras
import numpy as np
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from keras_clip._seam import backend

pytestmark = pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX alone compiles loops")

WAYS = {"loop": True, "branch": False}


@pytest.fixture(params=WAYS)
def _way(request, monkeypatch):
    from keras_clip._seam.jax import control_flow

    monkeypatch.setattr(control_flow, "loop_pays", lambda _: WAYS[request.param])


GRADIENTS = [np.float32([3.0, -0.0, 1e-41]), np.float32([[4.0, 1e-38]])]


def clip(arrays, max_norm):
    norm = np.sqrt(sum(np.sum(array.astype("float64") ** 2) for array in arrays))
    return backend.scale_to_norm(arrays, np.float32(norm), np.float32(max_norm), ())


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("max_norm", [5.0, 1e9, np.inf])
def test_idle_passes_every_bit(max_norm):
    for found, expected in zip(clip(GRADIENTS, max_norm), GRADIENTS, strict=True):
        assert np.asarray(found).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("max_norm", [2.5, 1e-3, 0.0])
def test_scales_where_there_is_something_to_clip(max_norm):
    for found, array in zip(clip(GRADIENTS, max_norm), GRADIENTS, strict=True):
        expected = array.astype("float64") * max_norm / 5.0
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-37)


def differentiates_barriers():
    """The norm has barriers, and early versions of JAX have no derivative for them."""
    if keras.config.backend() != "jax":
        return False
    import jax

    try:
        jax.grad(jax.lax.optimization_barrier)(1.0)
    except NotImplementedError:
        return False
    return True


@pytest.mark.skipif(not differentiates_barriers(), reason="this JAX differentiates no barrier")
@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("max_norm", [2.5, 50.0])
def test_is_differentiated_in_reverse(max_norm):
    import jax
    import jax.numpy as jnp

    gradient, direction = np.float32([3.0, 4.0]), np.float32([1.0, 2.0])

    def along(values):
        (clipped,), _ = keras_clip.clip_by_global_norm([values], max_norm)
        return jnp.sum(clipped * direction)

    unit = gradient / 5.0
    expected = (direction - unit * (unit @ direction)) * max_norm / 5.0
    if max_norm > 5.0:
        expected = direction
    np.testing.assert_allclose(jax.jit(jax.grad(along))(gradient), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize("bad", [False, True])
def test_updates_are_applied_or_left_out(bad):
    import jax

    variable = keras.Variable(np.float32([1.0, 2.0]))
    inner = keras.optimizers.SGD(1.0, momentum=0.5)
    optimizer = ClippedOptimizer(inner, max_norm=2.5, max_weight=0.4, nonfinite="skip")
    optimizer.build([variable])
    state = [own.value for own in optimizer.variables]
    gradient = np.float32([3.0, np.nan if bad else 4.0])
    step = jax.jit(lambda *arguments: optimizer.stateless_apply(*arguments))
    (weights,), after = step(state, [gradient], [variable.value])
    found = dict(zip([own.path for own in optimizer.variables], after, strict=True))
    (skipped,) = [value for path, value in found.items() if path.endswith("skipped_steps")]
    assert int(skipped) == bad
    # Clipped to half: 1.0 - 1.5, held at -0.4, and 2.0 - 2.0; or nothing at all.
    expected = [1.0, 2.0] if bad else [-0.4, 0.0]
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-6)
