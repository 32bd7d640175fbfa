"""The time that clipping adds to an update on replicas: TensorFlow, MirroredStrategy."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.interleaved import ROTATION, Variant
from keras_clip import ClippedOptimizer

_LIMIT = 1e-3


def split_processor(count: int) -> None:
    """Give each replica a device; possible only before TensorFlow has used the CPU."""
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)


def variants(replicas: int, shapes: list[tuple[int, ...]]) -> dict[str, Variant]:
    """Return updates of variables of these shapes: some clip, one does not."""
    devices = [f"CPU:{i}" for i in range(replicas)]
    # Collectives keep their number of replicas for the life of a process; this does not.
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    makers: dict[str, Callable[[], Any]] = {
        "no clipping": _sgd,
        "Keras, global_clipnorm": lambda: _sgd(global_clipnorm=_LIMIT),
        "keras_clip": lambda: ClippedOptimizer(_sgd(), _LIMIT),
    }
    with strategy.scope():
        return {name: _variant(strategy, make(), shapes) for name, make in makers.items()}


def _sgd(**options: Any) -> Any:
    return keras.optimizers.SGD(1e-5, **options)


def _variant(strategy: Any, optimizer: Any, shapes: list[tuple[int, ...]]) -> Variant:
    generator = np.random.default_rng(0)
    variables = [keras.Variable(np.zeros(shape, "float32")) for shape in shapes]
    optimizer.build(variables)
    sets = [
        [tf.constant(generator.standard_normal(shape, dtype="float32")) for shape in shapes]
        for _ in range(ROTATION)
    ]

    @tf.function(autograph=False)
    def update(gradients: list[Any]) -> None:
        def on_each(own: list[Any]) -> None:
            # The gradients of replicas differ, as if from different parts of a batch.
            share = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, "float32")
            optimizer.apply([gradient * (1.0 + share) for gradient in own], variables)

        strategy.run(on_each, args=(gradients,))

    def run(gradients: list[Any]) -> float:
        update(gradients)
        return float(np.ravel(keras.ops.convert_to_numpy(variables[-1]))[0])

    return Variant(sets.__getitem__, run)
