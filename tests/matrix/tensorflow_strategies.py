"""Strategies of `tf.distribute`."""

import os
import socket
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.matrix.strategy import Strategy


class Distributed(Strategy):
    """A strategy that splits each batch evenly over its replicas."""

    def __init__(self, strategy: Any = None) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()

    def scope(self) -> Any:
        return self.strategy.scope()

    def loop(self, model, given, on_batch):
        step = self.compiled_step(model)
        for batch in given:
            self.run(step, tuple(self.shared(array) for array in batch))
            on_batch(model)

    def run(self, step, batch):
        step(*batch)

    def compiled_step(self, model):
        @tf.function
        def step(inputs, targets):
            self.strategy.run(lambda *batch: self.replica_step(model, *batch), (inputs, targets))

        return step

    def replica_step(self, model, inputs, targets):
        optimizer, variables = model.optimizer, model.trainable_variables
        rows = len(targets) * self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            errors = tf.cast(model(inputs, training=True), targets.dtype) - targets
            loss = optimizer.scale_loss(tf.reduce_sum(tf.square(errors)) / rows)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def shared(self, array: np.ndarray) -> Any:
        """Give each replica the same number of rows."""
        shares = np.split(array.astype(keras.config.floatx()), self.strategy.num_replicas_in_sync)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(shares[context.replica_id_in_sync_group])
        )


class Checkpointed(Distributed):
    """A strategy that Keras's `fit` does not support."""

    usual_way = "loop"

    def resumed(self, model, make, folder):
        path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(folder / "saved")
        other = make()
        checkpoint = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
        checkpoint.restore(path).assert_consumed()
        return other


class ParameterServer(Checkpointed):
    """One worker, so that updates run in the order of the requests."""

    keeps_state = False

    def __init__(self) -> None:
        super().__init__(tf.distribute.ParameterServerStrategy(_servers_in_this_process()))
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)

    def run(self, step, batch):
        self.coordinator.schedule(step, args=batch)
        self.coordinator.join()

    def shared(self, array):
        return tf.constant(array)


def _servers_in_this_process() -> Any:
    cluster = tf.train.ClusterSpec(
        {job: [f"localhost:{free_port()}"] for job in ("worker", "ps")},
    )
    # On few cores, servers of one process would wait for each other's threads.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    for job in ("worker", "ps"):
        tf.distribute.Server(cluster, job_name=job, protocol="grpc", config=config)
    return tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def mirrored(replicas: int) -> Distributed:
    devices = [f"CPU:{index}" for index in range(replicas)]
    # Collectives keep their group size for the life of a process; this one does not.
    reduction = tf.distribute.ReductionToOneDevice()
    return Distributed(tf.distribute.MirroredStrategy(devices, reduction))


def central_storage() -> Distributed:
    devices = ["CPU:0", "CPU:1"]
    return Distributed(tf.distribute.experimental.CentralStorageStrategy(devices, "CPU:0"))


def workers() -> Distributed:
    assert "TF_CONFIG" in os.environ
    return Checkpointed(tf.distribute.MultiWorkerMirroredStrategy())


STRATEGIES = {
    "one device": Distributed,
    "OneDeviceStrategy": lambda: Distributed(tf.distribute.OneDeviceStrategy("CPU:0")),
    "MirroredStrategy, 2 replicas": lambda: mirrored(2),
    "MirroredStrategy, 8 replicas": lambda: mirrored(8),
    "CentralStorageStrategy, 2 devices": central_storage,
    "MultiWorkerMirroredStrategy, 2 processes": workers,
    "ParameterServerStrategy, 1 worker": ParameterServer,
}


def split_processor(devices: int) -> None:
    """Give each replica a device; possible only before TensorFlow has used the CPU."""
    logical = [tf.config.LogicalDeviceConfiguration()] * devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
