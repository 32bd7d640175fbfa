"""Three dense layers read digits; 1% of the batches have wild inputs and wrong labels."""

from dataclasses import replace

from benchmarks.tasks import dense_digits
from benchmarks.tasks.task import Task


def make() -> Task:
    title = "three dense layers, 1% of batches corrupted"
    return replace(dense_digits.make(), title=title, is_corrupted=True)
