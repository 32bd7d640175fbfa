"""Train in two processes and in one: started by `test_torch_ddp.py`."""

import json

import keras
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from keras_clip import AutoClip, ClippedOptimizer, Outliers
from keras_clip._seam import backend
from tests.distribution.processes import strict_warnings
from tests.distribution.torch_group import in_group
from tests.distribution.trained import (
    BATCH,
    EVERY_CLIPPER,
    STEPS,
    Counted,
    data,
    make_model,
    summary,
)
from tests.support.family import whole_family

SPIKES = {11: 1e6, 23: float("nan"), 37: 1e20}


def adam(**options):
    return keras.optimizers.Adam(0.01, **options)


def counted(clipper, inner, **options):
    return ClippedOptimizer(inner, clipper=Counted(clipper), **options)


CASES = {
    "SGD": lambda: counted(EVERY_CLIPPER["ClipByGlobalNorm"](), keras.optimizers.SGD(0.05)),
    "Adam, max_weight": lambda: ClippedOptimizer(adam(), max_norm=0.5, max_weight=0.4),
    "max_update_ratio": lambda: ClippedOptimizer(adam(), 0.5, max_update_ratio=0.003),
    "units": lambda: counted(EVERY_CLIPPER["AdaptiveGradientClipping"](), adam()),
    "family": lambda: counted(whole_family(), adam()),
    "accumulation": lambda: counted(EVERY_CLIPPER["AdaGC"](), adam(gradient_accumulation_steps=2)),
    "skip_above, spikes": lambda: counted(AutoClip(40.0, history_size=5), adam(), skip_above=10.0),
    "loss, spikes": lambda: ClippedOptimizer(
        adam(gradient_accumulation_steps=2), skip_above=Outliers(window=8, warm_up=4, of="loss")
    ),
    "accumulation, spikes": lambda: counted(
        EVERY_CLIPPER["ZClip"](), adam(gradient_accumulation_steps=2), skip_above=10.0
    ),
}


def batches(case):
    """The whole batch; its last row may be corrupted, and the second process has it."""
    inputs, targets = data()
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        batch_inputs, batch_targets = inputs[rows], targets[rows].copy()
        if "spikes" in case and step in SPIKES:
            batch_targets[-1] = SPIKES[step]
        yield batch_inputs, batch_targets


def train(case, rank=None):
    """On all rows in one process, or on this rank's half of each batch."""
    keras_model = make_model()
    model = keras_model if rank is None else DistributedDataParallel(keras_model)
    optimizer = CASES[case]()
    variables = keras_model.trainable_variables
    optimizer.build(variables)
    for inputs, targets in batches(case):
        if rank is not None:
            half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
            inputs, targets = inputs[half], targets[half]
        keras_model.zero_grad()
        loss = (model(torch.tensor(inputs)) - torch.tensor(targets)).square().mean()
        loss.backward()
        shown = {}
        if case.startswith("loss"):
            shown["loss"] = loss.detach() if rank is None else mean_over_processes(loss)
        optimizer.apply([variable.value.grad for variable in variables], variables, **shown)
    return summary(keras_model, optimizer)


def mean_over_processes(loss):
    mean = loss.detach() / torch.distributed.get_world_size()
    torch.distributed.all_reduce(mean)
    return mean


def main(rank):
    together = {case: train(case, rank) for case in CASES}
    # Each process has half of the cases to train again, by itself.
    alone = {case: train(case) for case in list(CASES)[rank::2]}
    processes = backend.process_count(make_model().trainable_variables[0])
    return {"together": together, "alone": alone, "processes": processes}


if __name__ == "__main__":
    strict_warnings()
    found = in_group(main)
    assert np.isfinite(found["together"]["skip_above, spikes"]["weights"]).all()
    print(json.dumps(found))
