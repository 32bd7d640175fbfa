"""A small transformer predicts characters; the targets of 1% of the batches are wrong."""

from dataclasses import replace

from benchmarks.tasks import character_model
from benchmarks.tasks.task import Task


def make() -> Task:
    title = "character model, 1% of batches corrupted"
    return replace(character_model.make(), title=title, is_corrupted=True)
