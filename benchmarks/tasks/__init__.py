"""Small tasks to compare limits of gradients and steps on: one a file.

Their data is generated or ships in a package. `load` makes a task by its name.
"""

from functools import cache
from importlib import import_module

from benchmarks.tasks.task import Task

# In the order of a sweep.
NAMES = (
    "recurrent_digits",
    "character_model",
    "dense_digits",
    "vision_transformer",
    "convolutional",
    "heavy_tailed_regression",
    "character_model_corrupted",
    "batch_normalized",
    "lora",
    "temporal_order",
    "dense_digits_corrupted",
    "fine_tuning",
    "cart_pole",
    "generative_adversarial",
    "mixed_precision",
)


@cache
def load(name: str) -> Task:
    """Return the task of this name."""
    if name not in NAMES:
        raise SystemExit(f"No task is named {name!r}. There are: {', '.join(NAMES)}.")
    task: Task = import_module(f"benchmarks.tasks.{name}").make()
    return task
