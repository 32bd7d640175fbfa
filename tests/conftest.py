"""Strict settings for every test: a named backend, fixed seeds, no leftovers.

The processes that run tests import Keras. The process that distributes the tests does not.
"""

import gc
import os
from importlib.metadata import PackageNotFoundError, version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# For the few programs of a test, torch.compile would start helpers that each import torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
import pytest

from tests.support.seeds import fix_seeds

LOGICAL_DEVICES = 2
SEED = 20250101

# These files take minutes, most of them in separate processes. Started last, one would keep a
# single test process busy while the others are idle.
LONGEST = ("test_notebooks", "tests/distribution", "test_law_7", "test_law_4", "test_law_8")


def pytest_configure(config: pytest.Config) -> None:
    """Fail at once if the tests would run on another backend than KERAS_BACKEND names."""
    asked = os.environ.get("KERAS_BACKEND")
    if asked is None:
        raise pytest.UsageError(
            "Set KERAS_BACKEND to tensorflow, jax or torch: the tests run on one."
        )
    if config.getoption("numprocesses", None):
        return
    import keras

    if keras.config.backend() != asked:
        raise pytest.UsageError(f"Asked for {asked!r}, running on {keras.config.backend()!r}.")
    if asked == "tensorflow":
        _split_processor_into_logical_devices()


def _split_processor_into_logical_devices() -> None:
    """Give replicas a device each; possible only before TensorFlow has used the CPU."""
    import tensorflow as tf

    devices = [tf.config.LogicalDeviceConfiguration()] * LOGICAL_DEVICES
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


def pytest_collection_finish() -> None:
    """Exclude the frameworks' objects from collections and from searches among all objects."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Print the versions of the run."""
    try:
        keras = f"keras {version('keras')}"
    except PackageNotFoundError:
        keras = f"keras-nightly {version('keras-nightly')}"
    return f"{keras} on {os.environ['KERAS_BACKEND']}"


@pytest.fixture(scope="session", autouse=True)
def _fixed_seed_of_the_backend():
    import keras

    keras.utils.set_random_seed(SEED)


@pytest.fixture(autouse=True)
def _fixed_seed_and_default_dtypes():
    import keras

    fix_seeds(SEED)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@pytest.fixture(scope="session")
def backend() -> str:
    """Name of the backend the tests run on."""
    import keras

    return keras.config.backend()
