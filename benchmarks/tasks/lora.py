"""LoRA on dense layers that know digits: half of the trained matrices start at zero."""

from dataclasses import replace
from typing import Any

from benchmarks.tasks import fine_tuning
from benchmarks.tasks.task import Task

RANK = 4


def make() -> Task:
    return replace(
        fine_tuning.make(),
        title=f"LoRA of rank {RANK} on turned digits",
        make_model=make_model,
        good_rates={"sgd": 0.1, "adam": 0.01, "lion": 0.001},
    )


def make_model() -> Any:
    model = fine_tuning.trained_model()
    for layer in model.layers:
        layer.enable_lora(RANK)
    return model
