"""ParameterServerStrategy, with all its servers in this process.

Prints the results of `python -m tests.distribution.parameter_server_program` as JSON.
"""

import json
import os

import keras
import tensorflow as tf

from keras_clip import AutoClip, ClippedOptimizer
from tests.distribution import cases
from tests.distribution.batches import as_lists, batch
from tests.distribution.children import free_ports
from tests.support.gradient_stream import values
from tests.support.models import make_model


def cluster_strategy():
    """One worker, so that updates run in the order of the requests."""
    worker, server = (f"localhost:{port}" for port in free_ports(2))
    cluster = tf.train.ClusterSpec({"worker": [worker], "ps": [server]})
    # On few cores, servers of one process wait for each other's threads.
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    for job in ("worker", "ps"):
        tf.distribute.Server(cluster, job_name=job, protocol="grpc", config=config)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    return tf.distribute.ParameterServerStrategy(resolver)


def train(strategy, make_optimizer):
    with strategy.scope():
        model, optimizer = make_model(), make_optimizer()
        optimizer.build(model.trainable_variables)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    @tf.function
    def step(inputs, targets):
        return strategy.run(replica_step, args=(inputs, targets))

    def replica_step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(inputs) - targets))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for index in range(cases.RESTART_STEPS):
        coordinator.schedule(step, args=tuple(map(tf.constant, batch(index))))
        coordinator.join()
    return as_lists(values(model.trainable_variables))


def error_of_build(strategy, **arguments):
    with strategy.scope():
        model = make_model()
        optimizer = ClippedOptimizer(keras.optimizers.SGD(0.1), **arguments)
        try:
            optimizer.build(model.trainable_variables)
        except ValueError as error:
            return str(error)
    return None


def main():
    strategy = cluster_strategy()
    found = {
        "without state": train(strategy, cases.adam),
        "with state": error_of_build(strategy, clipper=AutoClip()),
        "skipping": error_of_build(strategy, max_norm=1.0, skip_above=2.0),
    }
    print(json.dumps(found), flush=True)
    # Servers do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
