"""One process of torch, or several."""

import keras
import numpy as np
import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.matrix.problem import start
from tests.matrix.strategy import Strategy


class Process(Strategy):
    """A loop over the rows of this process: all rows if it is alone."""

    def parallel(self, model):
        return model

    def loop(self, model, given, on_batch):
        call = self.parallel(model)
        for batch in given:
            inputs, targets = (torch.tensor(self.own_rows(array)) for array in batch)
            # Not model.zero_grad(), which knows no variables that quantization has added.
            for variable in model.trainable_variables:
                variable.value.grad = None
            errors = call(inputs, training=True).to(targets.dtype) - targets
            model.optimizer.scale_loss(errors.square().mean()).backward()
            gradients = [variable.value.grad for variable in model.trainable_variables]
            model.optimizer.apply(gradients, model.trainable_variables)
            on_batch(model)

    def own_rows(self, array):
        array = array.astype(keras.config.floatx())
        if not torch.distributed.is_initialized():
            return array
        return np.split(array, torch.distributed.get_world_size())[torch.distributed.get_rank()]


class DataParallel(Process):
    """DistributedDataParallel."""

    usual_way = "loop"

    def parallel(self, model):
        return DistributedDataParallel(model)

    def fit(self, model, given, on_batch):
        super().fit(self.parallel(model), given, on_batch)


class FullySharded(Process):
    """A torch module, sharded before Keras wraps it: Keras trains the parameters of that moment."""

    usual_way = "loop"
    # Keras makes moments that are not DTensors.
    momentum = 0.0

    def make_model(self):
        module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        with torch.no_grad():
            for parameter, weight in zip(module.parameters(), start(), strict=True):
                parameter.copy_(torch.tensor(weight.T))
        fully_shard(module)
        return keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(module)])

    def resumed(self, model, make, folder):
        """Use torch's own state of the module: Keras would pickle it, which FSDP2 forbids."""
        other = make()
        weights = get_model_state_dict(module_of(model), options=WHOLE)
        torch.save(weights, folder / "module")
        set_model_state_dict(module_of(other), torch.load(folder / "module"), options=WHOLE)
        for from_optimizer, to_optimizer in zip(
            nested(model.optimizer), nested(other.optimizer), strict=True
        ):
            store = {}
            from_optimizer.save_own_variables(store)
            np.savez(folder / "optimizer.npz", **store)
            to_optimizer.load_own_variables(dict(np.load(folder / "optimizer.npz")))
        return other

    def array(self, variable):
        value = variable.value.detach()
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        return whole.numpy().T


WHOLE = StateDictOptions(full_state_dict=True)


def module_of(model):
    (wrapper,) = model.layers
    return wrapper.module


def nested(optimizer):
    """An optimizer, and the one inside it."""
    inner = getattr(optimizer, "inner_optimizer", None)
    return [optimizer] if inner is None else [optimizer, *nested(inner)]


STRATEGIES = {
    "one process": Process,
    "DistributedDataParallel, 2 processes": DataParallel,
    "FSDP2 (DTensor), 2 processes": FullySharded,
}
