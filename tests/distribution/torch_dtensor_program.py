"""Gradients that two processes hold shards of: started by `test_torch_dtensor.py`."""

import json
from functools import partial

import keras
import numpy as np
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import keras_clip
from keras_clip import AutoClip, ClippedOptimizer, UpdateClipping
from keras_clip._seam.torch import host
from tests.distribution.processes import message_of, strict_warnings
from tests.distribution.torch_group import in_group
from tests.distribution.trained import BATCH, EVERY_CLIPPER, Counted, data, summary

MAX_NORM = 0.5


def array(*shape, scale=1.0):
    return np.random.default_rng(len(shape) + shape[0]).normal(size=shape) * scale


def lists_of_gradients():
    """Return for each case arrays with their placements; None is a plain tensor."""
    rows, columns, copies, terms = Shard(0), Shard(1), Replicate(), Partial()
    spoilt = array(6, 2)
    spoilt[-1, -1] = np.nan
    return {
        "even": [(array(6, 2), rows)],
        "uneven": [(array(5, 3), rows), (array(3), rows)],
        "an empty shard": [(array(1, 4), rows), (array(1), rows)],
        "columns": [(array(3, 4), columns)],
        "copies": [(array(3, 4), copies)],
        "terms of a sum": [(array(3, 4), terms)],
        "mixed with plain tensors": [(array(4), None), (array(6, 2), rows), (array(2, 2), copies)],
        "large": [(array(6, 2, scale=1e30), rows), (array(4), None)],
        "small": [(array(6, 2, scale=1e-30), rows)],
        "zero": [(np.zeros((4, 2)), rows)],
        "NaN in the second shard": [(spoilt, rows), (array(3), None)],
    }


def placed(whole, placement, mesh, dtype):
    tensor = torch.tensor(whole, dtype=dtype)
    if placement is None:
        return tensor
    if placement.is_partial():
        share = tensor * (0.25 if mesh.get_rank() == 0 else 0.75)
        return DTensor.from_local(share, mesh, [placement])
    return distribute_tensor(tensor, mesh, [placement])


def full(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def flat(tensors):
    return torch.cat([full(tensor).double().reshape(-1) for tensor in tensors]).tolist()


def clipped(gradients):
    result, norm = keras_clip.clip_by_global_norm(gradients, MAX_NORM)
    assert type(norm) is torch.Tensor
    kinds = [(type(g), g.dtype, g.shape) for g in gradients]
    assert [(type(g), g.dtype, g.shape) for g in result] == kinds
    return {"whole": flat(gradients), "norm": float(norm), "clipped": flat(result)}


def clipped_lists(mesh):
    found = {}
    for dtype in (torch.float32, torch.float16):
        for case, pairs in lists_of_gradients().items():
            if dtype is torch.float16 and case in ("large", "small"):
                continue
            tensors = [placed(whole, placement, mesh, dtype) for whole, placement in pairs]
            found[f"{case}, {dtype}"] = clipped(tensors)
    found["huge in float16"] = clipped([placed(array(6, 2, scale=1e4), Shard(0), mesh, torch.half)])
    return found


def on_meshes_of_two_dimensions():
    """Meshes with copies of the shards, as in HSDP, and with shards of shards."""
    whole = torch.tensor(array(6, 2), dtype=torch.float32)
    found = {}
    for shape in ((2, 1), (1, 2)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("outer", "inner"))
        for placements in ([Replicate(), Shard(0)], [Shard(0), Shard(0)], [Shard(1), Shard(0)]):
            sharded = distribute_tensor(whole, mesh, placements)
            found[f"{shape} {placements}"] = clipped([sharded])
    return found


def not_decided_on_the_host(function):
    """Run it as on a device, where the host does not wait for values."""
    original = host.can_read
    host.can_read = lambda tensor: False
    try:
        return function()
    finally:
        host.can_read = original


def sgd(clipper, **options):
    return ClippedOptimizer(keras.optimizers.SGD(0.05), clipper=Counted(clipper), **options)


OPTIMIZERS = {
    name: lambda make=make: sgd(make())
    for name, make in EVERY_CLIPPER.items()
    if name != "AdaptiveGradientClipping"
} | {
    "max_weight": lambda: sgd(EVERY_CLIPPER["ClipByGlobalNorm"](), max_weight=0.4),
    "max_update_ratio": lambda: sgd(
        EVERY_CLIPPER["ClipByGlobalNorm"](), max_update_ratio=UpdateClipping(0.004)
    ),
    "max_update_ratio of each": lambda: sgd(
        EVERY_CLIPPER["ClipByGlobalNorm"](),
        max_update_ratio=UpdateClipping(0.004, per_variable=True),
    ),
    "skip_above": lambda: sgd(AutoClip(40.0, history_size=5), skip_above=10.0),
}
DECIDED_ON_A_DEVICE = ("skip_above", "max_weight", "max_update_ratio")
UPDATES, SPOILT_STEP = 20, 13


def network():
    generator = torch.Generator().manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module


def train(case, mesh=None, rank=None):
    """FSDP2 with half of each batch, or one process with all of it."""
    module = network()
    if mesh is not None:
        fully_shard(module, mesh=mesh)
    variables = keras.layers.TorchModuleWrapper(module).trainable_variables
    assert all(isinstance(v.value, DTensor) == (mesh is not None) for v in variables)
    optimizer = OPTIMIZERS[case]()
    optimizer.build(variables)
    inputs, targets = (torch.tensor(each) for each in data())
    if case == "skip_above":
        targets[SPOILT_STEP * BATCH + BATCH - 1] = torch.nan
    for step in range(UPDATES):
        size = BATCH if rank is None else BATCH // 2
        start = step * BATCH + (0 if rank is None else rank * size)
        rows = slice(start, start + size)
        module.zero_grad()
        (module(inputs[rows]) - targets[rows]).square().mean().backward()
        optimizer.apply([variable.value.grad for variable in variables], variables)
    return summary(Whole(variables), optimizer)


class Whole:
    """A model's variables, gathered."""

    def __init__(self, variables):
        self.trainable_variables = [keras.Variable(full(v.value.detach())) for v in variables]


def gradients_for(optimizer, mesh):
    weights = placed(array(6, 2), Shard(0), mesh, torch.float32)
    variable = keras.Variable(torch.nn.Parameter(weights), name="kernel")
    optimizer.build([variable])
    optimizer.apply([placed(array(6, 2), Shard(0), mesh, torch.float32)], [variable])


def what_is_not_supported(mesh):
    """Clip by a clipper, and by Keras without one."""
    agc = ClippedOptimizer("sgd", clipper="adaptive_gradient_clipping")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    fully_shard(model, mesh=mesh)
    return {
        "AdaptiveGradientClipping": message_of(partial(gradients_for, agc, mesh)),
        "Adam without a wrapper": message_of(partial(gradients_for, keras.optimizers.Adam(), mesh)),
        "parameters that torch has": [type(p).__name__ for p in model.parameters()],
        "variables that Keras trains": [type(v.value).__name__ for v in model.trainable_variables],
    }


def main(rank):
    mesh = init_device_mesh("cpu", (2,))
    return {
        "lists": clipped_lists(mesh) | on_meshes_of_two_dimensions(),
        "on a device": not_decided_on_the_host(lambda: clipped_lists(mesh)),
        "together": {case: train(case, mesh, rank) for case in OPTIMIZERS},
        "together on a device": not_decided_on_the_host(
            lambda: {case: train(case, mesh, rank) for case in DECIDED_ON_A_DEVICE}
        ),
        "alone": {case: train(case) for case in list(OPTIMIZERS)[rank::2]},
        "not supported": what_is_not_supported(mesh),
    }


if __name__ == "__main__":
    strict_warnings()
    print(json.dumps(in_group(main)))
