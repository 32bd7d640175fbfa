"""Train, save, and go on in a new process: `python -m tests.laws.resume_program FOLDER`.

Loads every saved case in FOLDER, trains on, and prints a digest of all weights and
optimizer variables of each. One process for all of them: most of its time is imports.
"""

import hashlib
import sys
from pathlib import Path

import keras
import numpy as np

from keras_clip import AutoClip, ClippedOptimizer, Outliers
from tests.support.family import whole_family
from tests.support.models import data, make_model
from tests.support.stateful_clipper import RunningMean

EPOCHS_PER_STAGE = 2


def make_optimizer(kind):
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.8)
    # On JAX a second `fit` with moving averages fails in Keras 3.15, wrapped or not:
    # see test_a_second_fit_with_moving_averages in test_law_8_drop_in.py.
    averages = keras.config.backend() != "jax"
    inner = keras.optimizers.Adam(decay, use_ema=averages, ema_momentum=0.9)
    if kind == "schedule":
        thresholds = keras.optimizers.schedules.PolynomialDecay(1.0, 20, 0.1)
        rule = Outliers(multiple=1.5, window=4, warm_up=2)
        return ClippedOptimizer(inner, thresholds, skip_above=rule)
    if kind == "accumulation":
        # Six batches a stage: the second stage starts between two updates.
        inner = keras.optimizers.Adam(0.1, gradient_accumulation_steps=4)
        return ClippedOptimizer(inner, clipper=RunningMean())
    if kind == "family":
        return ClippedOptimizer(
            inner, clipper=whole_family(), max_update_ratio=0.02, max_weight=0.7
        )
    if kind == "skipping":
        clipper = AutoClip(50.0, history_size=4)
        return ClippedOptimizer(inner, clipper=clipper, skip_above=1.05)
    return ClippedOptimizer(inner, max_norm=0.5)


def train(model):
    inputs, targets = data(24)
    model.fit(inputs, targets, batch_size=8, shuffle=False, verbose=0, epochs=EPOCHS_PER_STAGE)


class KerasFile:
    """`model.save` and `load_model`: the optimizer is made from the file alone."""

    def __init__(self, folder, kind):
        self.path, self.kind = folder / "model.keras", kind

    def start(self):
        return make_model(make_optimizer(self.kind))

    def save(self, model):
        model.save(self.path)

    def resume(self):
        return keras.models.load_model(self.path)


class WeightsFile(KerasFile):
    """`save_weights` and `load_weights` into a model compiled by the same program."""

    def save(self, model):
        model.save_weights(self.path.with_name("model.weights.h5"))

    def resume(self):
        model = self.start()
        model.optimizer.build(model.trainable_variables)
        model.load_weights(self.path.with_name("model.weights.h5"))
        return model


class Checkpoint(KerasFile):
    """`tf.train.Checkpoint` of model and optimizer."""

    def _checkpoint(self, model):
        import tensorflow as tf

        return tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    def save(self, model):
        self._checkpoint(model).write(str(self.path.with_name("checkpoint")))

    def resume(self):
        model = self.start()
        model.optimizer.build(model.trainable_variables)
        path = str(self.path.with_name("checkpoint"))
        self._checkpoint(model).read(path).assert_existing_objects_matched().assert_consumed()
        return model


FORMATS = {"keras": KerasFile, "weights": WeightsFile, "checkpoint": Checkpoint}


def digest(model):
    """Return a digest of all bits of weights and optimizer, and the last norm for an error."""
    arrays = [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)]
    bits = hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()
    return f"{bits} clipped {float(model.optimizer.grad_norm.numpy())}"


def storage_for(case, folder):
    """Return the place of a case: a format and a kind of optimizer."""
    format_name, kind = case
    own_folder = Path(folder) / f"{format_name}-{kind}"
    own_folder.mkdir(exist_ok=True)
    return FORMATS[format_name](own_folder, kind)


def resumed(case, folder):
    """Return the digest of a run that resumes from a file."""
    model = storage_for(case, folder).resume()
    train(model)
    return digest(model)


def never_stopped(case, folder):
    """Digest of a run that saves after the first stage and goes on."""
    storage = storage_for(case, folder)
    model = storage.start()
    train(model)
    before = digest(model)
    storage.save(model)
    assert digest(model) == before
    train(model)
    return digest(model)


def main(folder):
    for path in sorted(Path(folder).iterdir()):
        print("digest", path.name, resumed(path.name.split("-"), folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
