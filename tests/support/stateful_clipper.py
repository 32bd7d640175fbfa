"""A user's clippers that use everything the contract offers: state, weights, the step."""

import keras
import numpy as np
from keras import ops

import keras_clip


@keras.saving.register_keras_serializable("tests")
class RunningMean(keras_clip.Clipper):
    """Scale to `factor` times the running mean of the norms, times the largest weight norm."""

    def __init__(self, factor=0.5, decay=0.9):
        self.factor = factor
        self.decay = decay

    def build(self, variables):
        self.mean = self.add_variable((), name="mean")
        self.updates = self.add_variable((), dtype="int32", name="updates")
        self.places = {id(variable): place for place, variable in enumerate(variables)}
        self.per_variable = self.add_variable((len(variables),), initializer="ones", name="last")

    def clip(self, update):
        return keras_clip.clip_by_global_norm(update.gradients, self.limit(update))[0]

    def limit(self, update):
        self.mean.assign(self.decay * self.mean + (1 - self.decay) * update.global_norm)
        self.updates.assign(ops.cast(update.step, "int32") + 1)
        norms = [keras_clip.global_norm([ops.convert_to_tensor(v)]) for v in update.variables]
        places = np.array([[self.places[id(v)]] for v in update.variables])
        self.per_variable.assign(
            ops.scatter_update(self.per_variable.value, places, ops.stack(norms))
        )
        return self.factor * self.mean.value * ops.max(self.per_variable.value)

    def get_config(self):
        return {"factor": self.factor, "decay": self.decay}


@keras.saving.register_keras_serializable("tests")
class TellingMean(RunningMean):
    """The same, and the record shows its norms and threshold."""

    def clip(self, update):
        limit = self.limit(update)
        clipped, norm = keras_clip.clip_by_global_norm(update.gradients, limit)
        return keras_clip.Clipped(clipped, threshold=limit, norm_before=norm)
