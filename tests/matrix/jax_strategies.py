"""`keras.distribution` on JAX."""

import contextlib

import jax
import keras
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from tests.matrix.strategy import Strategy


class Sharded(Strategy):
    """A distribution of Keras, or none."""

    def __init__(self, distribution=None):
        self.distribution = distribution

    def scope(self):
        return self.distribution.scope() if self.distribution else contextlib.nullcontext()

    def fit(self, model, given, on_batch):
        def synchronized(model):
            # Between batches Keras holds the values elsewhere.
            model.jax_state_sync()
            on_batch(model)

        with self.scope():
            super().fit(model, given, synchronized)

    def loop(self, model, given, on_batch):
        optimizer = model.optimizer
        groups = [model.trainable_variables, model.non_trainable_variables, optimizer.variables]
        step = jax.jit(lambda state, *batch: stateless_step(model, state, *batch))
        with self.scope():
            for batch in given:
                state = [[variable.value for variable in group] for group in groups]
                state = step(state, *(self.shared(array) for array in batch))
                for group, values in zip(groups, state, strict=True):
                    for variable, value in zip(group, values, strict=True):
                        variable.assign(value)
                on_batch(model)

    def own_rows(self, array):
        return np.split(array, jax.process_count())[jax.process_index()]

    def array(self, variable):
        value = variable.value
        whole = value if value.is_fully_addressable else process_allgather(value, tiled=True)
        return np.array(whole)

    def shared(self, array):
        tensor = jax.numpy.asarray(array, keras.config.floatx())
        if self.distribution is None:
            return tensor
        layout = self.distribution.get_data_layout(array.shape)
        return keras.distribution.distribute_tensor(tensor, layout)


def stateless_step(model, state, inputs, targets):
    weights, others, optimizer_state = state
    optimizer = model.optimizer

    def loss_of(weights):
        predicted, found = model.stateless_call(weights, others, inputs, training=True)
        loss = jax.numpy.square(predicted.astype(targets.dtype) - targets).mean()
        with keras.StatelessScope(zip(optimizer.variables, optimizer_state, strict=True)):
            return optimizer.scale_loss(loss), found

    gradients, others = jax.grad(loss_of, has_aux=True)(weights)
    return [*_applied(optimizer, optimizer_state, gradients, weights, others)]


def _applied(optimizer, optimizer_state, gradients, weights, others):
    weights, optimizer_state = optimizer.stateless_apply(optimizer_state, gradients, weights)
    return weights, others, optimizer_state


def data_parallel():
    devices = keras.distribution.list_devices("cpu")
    return Sharded(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))


def model_parallel():
    """Halves of the batch on two groups of devices, units of the hidden layer in each."""
    devices = keras.distribution.list_devices("cpu")
    shape = (2, len(devices) // 2)
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"), devices)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*hidden/kernel"] = (None, "model")
    layouts[".*hidden/bias"] = ("model",)
    layouts[".*output/kernel"] = ("model", None)
    return Sharded(
        keras.distribution.ModelParallel(
            layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
        )
    )


STRATEGIES = {
    "one device": Sharded,
    "DataParallel, 8 devices": data_parallel,
    "ModelParallel, 8 devices": model_parallel,
    "DataParallel, 2 processes": data_parallel,
    "ModelParallel, 2 processes": model_parallel,
}
