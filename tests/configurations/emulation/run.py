"""The emulation of a whole configuration."""

from tests.configurations.configuration import Configuration, gradients, loss
from tests.configurations.emulation.optimizer import EmulatedOptimizer


def smallest_margin(configuration: Configuration) -> float:
    """Return how close any number in it comes to a decision."""
    emulated = EmulatedOptimizer(configuration, "tensorflow")
    for call in range(len(configuration.batches)):
        for assignment in configuration.assignments:
            if assignment.call == call:
                emulated.assign(assignment)
        emulated.apply(gradients(configuration, call), loss(configuration, call))
    return emulated.smallest_margin
