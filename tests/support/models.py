"""A small model and data for it, the same on every call."""

from typing import Any

import keras
import numpy as np

from tests.support.seeds import fix_seeds


def data(samples: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose scale grows, so that gradients of batches differ in norm."""
    generator = np.random.default_rng(7)
    inputs = generator.normal(size=(samples, 4)) * np.linspace(0.2, 3.0, samples)[:, None]
    targets = np.tanh(inputs).sum(axis=1, keepdims=True) * 3.0
    return inputs.astype("float32"), targets.astype("float32")


def make_model(optimizer: Any = None, **compile_arguments: Any) -> Any:
    """Dense layers with a fixed initialisation, compiled if an optimizer is given."""
    fix_seeds(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", name="hidden"),
            keras.layers.Dense(1, name="output"),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer=optimizer, loss="mse", **compile_arguments)
    return model


def fit(model: Any, epochs: int = 2, **arguments: Any) -> Any:
    """Train on `data` in a fixed order."""
    inputs, targets = data()
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(inputs, targets, epochs=epochs, **arguments)
