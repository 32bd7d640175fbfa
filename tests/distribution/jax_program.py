"""Train on 8 devices and on one: `python -m tests.distribution.jax_program WHAT`."""

import json
import re
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import keras
from packaging.version import Version

from keras_clip import AutoClip, ClippedOptimizer
from tests.distribution.processes import message_of, strict_warnings
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


def data_parallel():
    """Every variable on every device, a row of the batch on each."""
    return keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu"))


def model_parallel():
    """Units of the hidden layer on 4 devices, halves of the batch on 2."""
    devices = keras.distribution.list_devices("cpu")
    # Keras 3.8 hands the parts of a batch to devices in the order of a set. Devices that share the
    # units of a layer then see different rows, so on it each device gets all rows.
    shape = (2, 4) if Version(keras.__version__) >= Version("3.15") else (1, 8)
    layouts = keras.distribution.LayoutMap(
        keras.distribution.DeviceMesh(shape, ("batch", "model"), devices)
    )
    layouts[".*hidden/kernel"] = (None, "model")
    layouts[".*hidden/bias"] = ("model",)
    layouts[".*output/kernel"] = ("model", None)
    if shape == (2, 4):
        # Meant for normalization layers; clippers have variables of such names, too.
        layouts[".*(gamma|norm|mean|window)"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


SCOPES = {
    "one device": nullcontext,
    "data parallel": lambda: data_parallel().scope(),
    "model parallel": lambda: model_parallel().scope(),
}


def adam(**options):
    return keras.optimizers.Adam(0.01, **options)


def idle():
    return ClippedOptimizer(adam(), max_norm=float("inf"))


def counted(make_clipper, inner):
    return lambda: ClippedOptimizer(inner(), clipper=Counted(make_clipper()))


CLIPPERS: dict = {name: counted(make, adam) for name, make in EVERY_CLIPPER.items()}
CLIPPERS["family, max_weight"] = lambda: ClippedOptimizer(
    adam(), clipper=Counted(whole_family()), max_weight=0.7
)

OPTIONS = {
    "SGD": counted(EVERY_CLIPPER["ClipByGlobalNorm"], lambda: keras.optimizers.SGD(0.05)),
    "Adam": lambda: ClippedOptimizer(adam(), max_norm=0.5),
    "accumulation, max_weight": lambda: ClippedOptimizer(
        adam(gradient_accumulation_steps=2),
        clipper=Counted(EVERY_CLIPPER["AdaGC"]()),
        max_weight=0.4,
    ),
    "AdaptiveGradientClipping, SGD": counted(
        EVERY_CLIPPER["AdaptiveGradientClipping"], lambda: keras.optimizers.SGD(0.05)
    ),
    "max_update_ratio": lambda: ClippedOptimizer(adam(), max_norm=0.5, max_update_ratio=0.003),
    "skip_above": lambda: ClippedOptimizer(
        adam(), clipper=Counted(AutoClip(40.0, history_size=5)), skip_above=1.5
    ),
}


def fit(model, first=0, last=STEPS):
    inputs, targets = (array[first * BATCH : last * BATCH] for array in data())
    model.fit(inputs, targets, batch_size=BATCH, shuffle=False, verbose=0)
    return model


def train(scope, make_optimizer):
    with SCOPES[scope]():
        model = fit(make_model(make_optimizer()))
    return summary(model, model.optimizer)


def compare(cases, scopes=tuple(SCOPES)):
    """Return for each case the result of each kind of distribution."""
    return {case: {scope: train(scope, make) for scope in scopes} for case, make in cases.items()}


def resumable():
    return ClippedOptimizer(adam(), clipper=[AutoClip(60.0, history_size=5), "ada_gc"])


def resumed(scope, other_scope):
    """Train in one scope, stop halfway, go on in another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        with SCOPES[scope]():
            fit(make_model(resumable()), last=STEPS // 2).save(path)
        with SCOPES[other_scope]():
            model = fit(keras.models.load_model(path), first=STEPS // 2)
    return summary(model, model.optimizer)


def resumes():
    """Return runs that stopped halfway, and runs that did not."""
    scopes = ("model parallel", "one device")
    return {
        "never stopped": {scope: train(scope, resumable) for scope in scopes},
        "resumed": {scope: resumed("model parallel", scope) for scope in scopes},
    }


def collectives(scope, make_optimizer):
    """Return the exchanges of a compiled step: by kind of collective, a count for each size."""
    with SCOPES[scope]():
        model = make_model(make_optimizer())
        model.optimizer.build(model.trainable_variables)
        groups = [
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        ]
        state = tuple([variable.value for variable in group] for group in groups)
        layout = keras.distribution.distribution().get_data_layout((BATCH, 4))
        rows = [jax.numpy.asarray(array[:BATCH]) for array in data()]
        batch = tuple(keras.distribution.distribute_tensor(a, layout) for a in rows)
        shardings = (None, jax.tree.map(lambda value: value.sharding, state))
        step = jax.jit(model.train_step, out_shardings=shardings)
        text = step.lower(state, batch).compile().as_text()
    return counted_collectives(text)


def counted_collectives(text):
    pattern = r"= (.*) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\S*\("
    found = Counter()
    for shapes, kind in re.findall(pattern, text):
        for shape in re.findall(r"\w+\[([\d,]*)\]", shapes):
            found[f"{kind} [{shape}]"] += 1
    return found


def all_collectives():
    """Return the collectives of the bare optimizer, and of wrapped ones."""
    optimizers = {
        "bare": adam,
        "wrapped": lambda: ClippedOptimizer(adam(), max_norm=0.5),
        "units": lambda: ClippedOptimizer(adam(), clipper="adaptive_gradient_clipping"),
    }
    return {
        scope: {name: collectives(scope, make) for name, make in optimizers.items()}
        for scope in SCOPES
        if scope != "one device"
    }


def fit_what_cannot_be_split(scope, make_optimizer):
    inputs, targets = data(3)
    with SCOPES[scope]():
        make_model(make_optimizer()).fit(inputs, targets, verbose=0)


def uneven():
    """Return the results of a batch of 3 with the bare and with the wrapped optimizer."""
    return {
        scope: [message_of(partial(fit_what_cannot_be_split, scope, make)) for make in (adam, idle)]
        for scope in ("data parallel", "model parallel")
    }


PROGRAMS = {
    # On replicated variables a clipper sees the same as on one device.
    "clippers": lambda: compare(CLIPPERS, ("one device", "model parallel")),
    "options": lambda: compare(OPTIONS),
    "resumes": resumes,
    "structure": lambda: {"collectives": all_collectives(), "uneven": uneven()},
}


if __name__ == "__main__":
    strict_warnings()
    assert jax.device_count() == 8
    print(json.dumps(PROGRAMS[sys.argv[1]]()))
