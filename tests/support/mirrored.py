"""A model trained on one device, or by replicas of `tf.distribute.MirroredStrategy`."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conftest import LOGICAL_DEVICES
from tests.support.models import data, make_model


def mirrored_strategy(replicas: int = LOGICAL_DEVICES) -> Any:
    """A strategy over logical devices of the CPU."""
    import tensorflow as tf

    devices = [f"CPU:{i}" for i in range(replicas)]
    # Collectives keep their group size for the life of a process; this one does not.
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def train(
    strategy: Any,
    make_optimizer: Callable[[], Any],
    *,
    targets: np.ndarray | None = None,
    batch_size: int = 16,
    epochs: int = 4,
) -> Any:
    """Fit the same model on the same batches; without a strategy on one device."""
    import tensorflow as tf

    scope = contextlib.nullcontext() if strategy is None else strategy.scope()
    with scope:
        model = make_model(make_optimizer(), jit_compile=False)
    # The scale of the inputs grows, so that the halves of a batch are unequal.
    inputs, usual = data()
    usual = usual if targets is None else targets
    batches = tf.data.Dataset.from_tensor_slices((inputs, usual)).batch(batch_size)
    model.fit(batches, epochs=epochs, shuffle=False, verbose=0)
    return model


def copies(variable: Any) -> list[np.ndarray]:
    """Return the copy of a variable on each replica."""
    value = variable.value if hasattr(variable, "value") else variable
    return [copy.numpy() for copy in getattr(value, "values", [value])]
