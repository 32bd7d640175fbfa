"""Strict settings for every test: a named backend, fixed seeds, no leftovers."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# torch.compile would start helpers, each of which imports torch, for the few programs of a test.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
import keras
import pytest

LOGICAL_DEVICES = 2

# Files of minutes, most of them in processes of their own: started last, one would keep a single
# test process busy while the others have nothing left.
LONGEST = ("test_notebooks", "tests/distribution", "test_soak", "test_law_7", "test_law_4")


def pytest_configure() -> None:
    """Fail at once where the tests would run on another backend than was asked for."""
    asked = os.environ.get("KERAS_BACKEND")
    if asked is None:
        raise pytest.UsageError(
            "Set KERAS_BACKEND to tensorflow, jax or torch: the tests run on one."
        )
    if keras.config.backend() != asked:
        raise pytest.UsageError(f"Asked for {asked!r}, running on {keras.config.backend()!r}.")
    if asked == "tensorflow":
        _split_processor_into_logical_devices()


def _split_processor_into_logical_devices() -> None:
    """Give replicas a device each; possible only before TensorFlow has used the processor."""
    import tensorflow as tf

    devices = [tf.config.LogicalDeviceConfiguration()] * LOGICAL_DEVICES
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes longest go first."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


def pytest_collection_finish() -> None:
    """Spare the collector, and whoever looks for layers among all objects, the frameworks'."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Say what runs."""
    return f"keras {keras.__version__} on {keras.config.backend()}"


@pytest.fixture(autouse=True)
def _fixed_seed_and_default_dtypes():
    keras.utils.set_random_seed(20250101)
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_floatx("float32")


@pytest.fixture(scope="session")
def backend() -> str:
    """Name of the backend the tests run on."""
    return keras.config.backend()
