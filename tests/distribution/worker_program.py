"""One worker of MultiWorkerMirroredStrategy: `python -m tests.distribution.worker_program`.

Its arguments are what to run: "bare", "skipping", "fit" or a case; the results are printed as
JSON. With `checkpointed FOLDER`, the case that is checkpointed there, dying on the way where that
is asked for as well.
"""

# ruff: noqa: E402 - the strategy has to be there before anything else uses TensorFlow.
import tensorflow as tf

STRATEGY = tf.distribute.MultiWorkerMirroredStrategy()

import json
import os
import signal
import sys
from collections import Counter

import keras
import numpy as np

from keras_clip._seam import backend
from tests.distribution import cases
from tests.distribution.batches import BATCH, batch, unequal_shares
from tests.distribution.own_loop import OwnLoop

WORKER = STRATEGY.cluster_resolver.task_id
SHARES = unequal_shares(2)


def loop(make_optimizer):
    return OwnLoop(STRATEGY, make_optimizer, SHARES)


def compared(make_optimizer):
    """Return a whole run, with its state after the steps of the restarted run."""
    run = loop(make_optimizer)
    start = run.run(0, cases.RESTART_STEPS)
    halfway = run.result()
    rest = run.run(cases.RESTART_STEPS)
    course = {key: start[key] + rest[key] for key in start}
    return {**course, **run.result(), "halfway": halfway, "collectives": collectives(run)}


def collectives(run):
    """Return the number of each collective operation in one step."""
    arguments = [run.shared(array) for array in (*batch(0), np.ones((BATCH, 1), "float32"))]
    graph = run.compiled.get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return Counter(node.op for node in nodes if node.op.startswith("Collective"))


def skipped():
    """Steps whose last sample, which the second worker has, is out of bounds or NaN."""
    run = loop(cases.skipping)
    run.run(0, 1)
    before = run.result()["weights"]
    for step, bad in enumerate([1e9, np.nan], start=1):
        inputs, targets = batch(step)
        targets[-1] = bad
        run.take_step(inputs, targets)
    skips = int(run.optimizer.skipped_steps.numpy())
    unchanged = run.result()["weights"] == before
    run.run(3, 4)
    counted = collectives(run)
    processes = backend.process_count(run.optimizer.skipped_steps)
    found = {"skipped": skips, "unchanged": unchanged, "processes": processes}
    return {**found, **run.result(), "collectives": counted}


def error_of_fit(make_optimizer):
    """The error of Keras's own `fit`, or None."""
    with STRATEGY.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(make_optimizer(), "mse")
    try:
        model.fit(tf.data.Dataset.from_tensors(batch(0)), verbose=0)
    except ValueError as error:
        return str(error)
    return None


def until_end(folder, deadly):
    """Go on from the latest checkpoint, if there is one, and save on the way."""
    run = loop(cases.adam_family)
    checkpoint = tf.train.Checkpoint(model=run.model, optimizer=run.optimizer)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=None)
    resumed_at = 0
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
        resumed_at = int(run.optimizer.iterations.numpy())
    for step in range(resumed_at, cases.RESTART_STEPS):
        if deadly and WORKER == 1 and step == cases.DEATH_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        run.run(step, step + 1)
        # All variables are mirrored, so every worker has the same copy.
        if WORKER == 0 and (step + 1) % cases.STEPS_PER_CHECKPOINT == 0:
            manager.save()
    return {"resumed_at": resumed_at, **run.result()}


def result_of(name):
    if name == "bare":
        return {"collectives": collectives(loop(bare))}
    if name == "skipping":
        return skipped()
    if name == "fit":
        return {"bare": error_of_fit(bare), "clipped": error_of_fit(cases.sgd)}
    return compared(cases.OWN_LOOPS[name])


def bare():
    return keras.optimizers.SGD(cases.LEARNING_RATE)


def main(*words):
    if words[0] == "checkpointed":
        print(json.dumps(until_end(words[1], deadly="dying" in words)))
    else:
        print(json.dumps({name: result_of(name) for name in words}))


if __name__ == "__main__":
    main(*sys.argv[1:])
