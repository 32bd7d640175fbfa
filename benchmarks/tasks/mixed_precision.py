"""The recurrent network in mixed_float16, with a loss scale that adapts."""

from dataclasses import replace
from typing import Any

import keras

from benchmarks.tasks import recurrent_digits
from benchmarks.tasks.task import Task


def make() -> Task:
    return replace(
        recurrent_digits.make(),
        title="recurrent network, mixed_float16",
        make_model=make_model,
        is_loss_scaled=True,
    )


def make_model() -> Any:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return recurrent_digits.make_model()
    finally:
        keras.config.set_dtype_policy("float32")
