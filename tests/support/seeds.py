"""Seeds for tests: Keras's layers draw their seeds from these generators."""

import random

import numpy as np


def fix_seeds(seed: int) -> None:
    """Seed Python and NumPy, not the backend: TensorFlow would forget its compiled kernels.

    Keras draws the seeds of layers from Python's generator; no test draws from a backend's.
    """
    random.seed(seed)
    np.random.seed(seed)
