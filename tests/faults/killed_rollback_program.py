"""Train with backups and rollbacks: `python -m tests.faults.killed_rollback_program FOLDER`.

One batch of each of three epochs is bad. With a second argument `die`, the program kills itself
in the second rollback, when half of the variables are restored. Otherwise it goes on from the
backup in FOLDER, if there is one, and prints a digest of all weights and all state.
"""

import os
import signal
import sys

import keras

from keras_clip import RollBack
from keras_clip.recovery.snapshots import Snapshot
from tests.faults.killed_program import digest
from tests.recovery.test_roll_back import adaptive, batches, fit
from tests.support.seeds import fix_seeds

BATCHES, BAD, EPOCHS = 6, 4, 3


def make_model() -> keras.Model:
    """Without dropout: Keras saves no states of seeds."""
    fix_seeds(3)
    layers = [keras.layers.Dense(6, "tanh"), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile(adaptive(), loss="mse")
    return model


def die_in_second_rollback() -> None:
    """Replace the restoring of a snapshot; the second call does half of it."""
    assign_to, calls = Snapshot.assign_to, []

    def assign_half(snapshot, variables):
        calls.append(None)
        if len(calls) < 2:
            assign_to(snapshot, variables)
            return
        half = len(variables) // 2
        for variable, value in zip(variables[:half], snapshot.values, strict=False):
            variable.assign(value)
        os.kill(os.getpid(), signal.SIGKILL)

    Snapshot.assign_to = assign_half


def main(folder: str, *words: str) -> None:
    if "die" in words:
        die_in_second_rollback()
    model = make_model()
    backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    roll_back = RollBack(every=1, check_every=1, patience=1, max_rollbacks=EPOCHS)
    fit(model, *batches(BATCHES, bad=[BAD]), [backup, roll_back], epochs=EPOCHS)
    print("rollbacks", len(roll_back.events))
    print("digest", digest(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
