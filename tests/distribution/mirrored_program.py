"""Runs under MirroredStrategy on eight logical devices: `python -m ...mirrored_program PART`.

Prints the results of `own_loops` or of `fits`, one device among them, as JSON.
"""

import json
import sys

import keras
import tensorflow as tf

from keras_clip import ClippedOptimizer
from tests.distribution import cases
from tests.distribution.batches import BATCH, STEPS, as_lists, batch, unequal_shares
from tests.distribution.own_loop import OwnLoop, one_device_run
from tests.support.gradient_stream import values
from tests.support.models import data, make_model


class Counting(tf.distribute.ReductionToOneDevice):
    """Counts the reductions of gradients in a trace."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def batch_reduce_implementation(self, reduce_op, value_destination_pairs, options):
        self.batches.append(len(value_destination_pairs))
        return super().batch_reduce_implementation(reduce_op, value_destination_pairs, options)


def mirrored(replicas):
    devices = [f"CPU:{i}" for i in range(replicas)]
    # Collectives keep their group size for the life of a process; these do not.
    return tf.distribute.MirroredStrategy(devices, Counting())


def bare():
    return keras.optimizers.SGD(cases.LEARNING_RATE)


def copies(optimizer):
    """Return all state of the clipper on each replica."""
    held = [variable.value.values for variable in optimizer.clipper.variables]
    return [as_lists(replica) for replica in zip(*held, strict=True)]


def own_loop(replicas, make_optimizer):
    strategy = mirrored(replicas)
    run = OwnLoop(strategy, make_optimizer, unequal_shares(replicas))
    run.run()
    return {
        **run.result(),
        "copies": copies(run.optimizer),
        "reductions": strategy.extended._cross_device_ops.batches,
    }


def reductions_without_clipping():
    strategy = mirrored(2)
    run = OwnLoop(strategy, bare, unequal_shares(2))
    run.take_step(*batch(0))
    return strategy.extended._cross_device_ops.batches


def dataset(samples, batch_size=BATCH):
    return tf.data.Dataset.from_tensor_slices(data(samples)).batch(batch_size)


def fit(strategy, make_optimizer, batches, **arguments):
    """Keras's loop over batches, for at least 50 steps."""
    with strategy.scope():
        model = make_model(make_optimizer(), jit_compile=False, **arguments)
    # Each epoch would be traced again.
    repeated = batches.repeat(-(-STEPS // len(batches)))
    model.fit(repeated, shuffle=False, verbose=0)
    return {
        "weights": as_lists(values(model.trainable_variables)),
        "iterations": int(model.optimizer.iterations.numpy()),
    }


def shares_of_each_batch(replicas, batches):
    """How many samples tf.distribute gives to each replica."""
    distributed = mirrored(replicas).experimental_distribute_dataset(batches)
    return [[len(share) for share in inputs.values] for inputs, _ in distributed]


def error_of_fit(replicas, make_optimizer):
    try:
        fit(mirrored(replicas), make_optimizer, dataset(BATCH))
    except (RuntimeError, tf.errors.InvalidArgumentError) as error:
        return str(error)
    return None


def averaging(overwrite_frequency=None):
    return keras.optimizers.SGD(
        cases.LEARNING_RATE,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=overwrite_frequency,
    )


def own_loops():
    """Run one optimizer on each number of replicas, and each optimizer on one device."""
    return {
        "replicas": {
            name: own_loop(replicas, cases.OWN_LOOPS[name])
            for name, replicas in cases.REPLICAS.items()
        },
        "one_device": {name: one_device_run(cases.OWN_LOOPS[name]) for name in cases.REPLICAS},
        "reductions_without_clipping": reductions_without_clipping(),
    }


def fits():
    """Keras's own loop: batches that divide evenly, that do not, moving averages."""
    one_device = tf.distribute.get_strategy()
    even, uneven = dataset(48), dataset(cases.UNEVEN_SAMPLES, 15)
    return {
        "even": {
            "one_device": fit(one_device, cases.adam, even),
            "replicas": fit(mirrored(4), cases.adam, even, steps_per_execution=4),
        },
        "averages": {
            "one_device": fit(one_device, clipped_averaging, even),
            "replicas": fit(mirrored(2), clipped_averaging, even),
        },
        "uneven": {
            "shares": shares_of_each_batch(3, uneven),
            "bare": fit(mirrored(3), bare, uneven),
            "clipped": fit(mirrored(3), cases.sgd, uneven),
            "bare_one_device": fit(one_device, bare, uneven),
        },
        "refused": {
            "first batch uneven": {
                "bare": error_of_fit(3, bare),
                "clipped": error_of_fit(3, cases.sgd),
            },
            "averages overwrite": {
                "bare": error_of_fit(2, lambda: averaging(2)),
                "clipped": error_of_fit(2, lambda: ClippedOptimizer(averaging(2))),
            },
        },
    }


def clipped_averaging():
    return ClippedOptimizer(averaging(), max_norm=cases.MAX_NORM)


def main(part):
    processor = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * max(cases.REPLICAS.values())
    tf.config.set_logical_device_configuration(processor, logical)
    start = as_lists(make_model().get_weights())
    results = {"own_loops": own_loops, "fits": fits}[part]()
    print(json.dumps({"start": start, **results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
