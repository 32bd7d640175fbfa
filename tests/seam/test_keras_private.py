"""The private Keras names: all are listed and exist, and a missing one gives a clear error."""

import ast
from pathlib import Path

import keras
import pytest

import keras_clip
from keras_clip import ClippedOptimizer
from keras_clip._seam import keras_private
from keras_clip._seam.compiled_model import PRIVATE_MODEL_NAMES
from keras_clip._seam.sublayers import PRIVATE_LAYER_NAMES
from tests.support.gradient_stream import make_variables
from tests.support.optimizers import keras_has

PACKAGE = Path(keras_clip.__file__).parent
SEAM = sorted((PACKAGE / "_seam").rglob("*.py"))
OUTSIDE = sorted(path for path in PACKAGE.rglob("*.py") if path not in SEAM)
LISTED = {
    **keras_private.PRIVATE_NAMES,
    **keras_private.PRIVATE_TENSORFLOW_NAMES,
    **keras_private.PRIVATE_TORCH_NAMES,
    **keras_private.PRIVATE_SHOWN_NAMES,
    **keras_private.PRIVATE_GRAPH_NAMES,
    **keras_private.PRIVATE_MULTI_OPTIMIZER_NAMES,
    **keras_private.PRIVATE_ACCUMULATION_NAMES,
    **keras_private.PRIVATE_LOSS_SCALE_NAMES,
    **PRIVATE_LAYER_NAMES,
    **PRIVATE_MODEL_NAMES,
}


def private_attributes(path):
    """Yield private names that are read from objects other than `self`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "torch")
        if not own and not node.attr.endswith("__"):
            yield node.attr


@pytest.mark.parametrize("name", keras_private.PRIVATE_NAMES)
def test_keras_has(name):
    optimizer = keras.optimizers.Adam()
    optimizer.build(make_variables())
    assert hasattr(optimizer, name)


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="names of the TensorFlow backend"
)
@pytest.mark.parametrize("name", keras_private.PRIVATE_TENSORFLOW_NAMES)
def test_keras_on_tensorflow_has(name):
    assert hasattr(keras.optimizers.Adam(), name)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="names of the torch backend")
@pytest.mark.parametrize("name", keras_private.PRIVATE_TORCH_NAMES)
def test_keras_on_torch_has(name):
    assert hasattr(make_variables()[0], name)


@pytest.mark.skipif(not keras_has("MultiOptimizer"), reason="this Keras has no MultiOptimizer")
@pytest.mark.parametrize("name", keras_private.PRIVATE_MULTI_OPTIMIZER_NAMES)
def test_keras_multi_optimizer_has(name):
    member = keras.optimizers.Adam(gradient_accumulation_steps=2)
    multi = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(member, {}))
    multi.build(make_variables())
    assert hasattr(multi, name)


@pytest.mark.parametrize("name", keras_private.PRIVATE_LOSS_SCALE_NAMES)
def test_keras_loss_scale_optimizer_has(name):
    assert hasattr(keras.optimizers.LossScaleOptimizer, name)


@pytest.mark.parametrize("name", PRIVATE_MODEL_NAMES)
def test_compiled_models_have(name):
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    assert hasattr(model, name)


@pytest.mark.parametrize("name", PRIVATE_LAYER_NAMES)
def test_layers_of_keras_have(name):
    assert hasattr(keras.layers.Dense(1), name)


@pytest.mark.parametrize("path", SEAM, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_private_name_is_listed_with_its_reason(path):
    used = set(private_attributes(path))
    assert used <= set(LISTED), "used, but listed nowhere"
    assert all(len(reason) > 20 for reason in LISTED.values())


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_name_outside_the_seam(path):
    assert not set(private_attributes(path)) & set(LISTED)
    assert "keras.src" not in path.read_text()


@pytest.mark.parametrize("name", ["_backend_update_step", "_iterations", "_track_variable"])
def test_a_keras_that_lacks_a_name_is_refused_when_wrapping(name, monkeypatch):
    monkeypatch.setitem(keras_private.PRIVATE_NAMES, f"{name}_renamed", "a name that is not there")
    with pytest.raises(ImportError) as caught:
        ClippedOptimizer("sgd")
    message = str(caught.value)
    assert f"keras {keras.__version__} has no {name}_renamed" in message
    assert f"Keras {keras_private.OLDEST_KERAS} to {keras_private.NEWEST_KERAS}" in message


@pytest.mark.skipif("dev" in keras.__version__, reason="nightly versions have no number yet")
def test_this_keras_is_one_of_those_named():
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    oldest, newest = (
        tuple(map(int, text.split(".")))
        for text in (keras_private.OLDEST_KERAS, keras_private.NEWEST_KERAS)
    )
    assert version in (oldest, newest)
