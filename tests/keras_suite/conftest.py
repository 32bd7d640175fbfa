"""Settings under which Keras's own tests run."""

from collections.abc import Iterator

import keras
import pytest

from .compilation_cache import jax_compilation_cache
from .shipped_files import shipped_test_files

# `test_shipped_files` asserts which versions of Keras have nothing to run.
collect_ignore = [] if shipped_test_files() else ["test_suite_can_fail.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the only marker of Keras that its optimizer tests use."""
    config.addinivalue_line(
        "markers", "requires_trainable_backend: of Keras; true for all three backends"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make endurance` the tests that JAX compiles for minutes, operation by operation."""
    if keras.config.backend() != "jax":
        return
    for item in items:
        if "test_keras_suite" in item.nodeid:
            item.add_marker(pytest.mark.endurance)


@pytest.fixture(autouse=True)
def _traceback_filtering_as_before() -> Iterator[None]:
    # Keras's test cases switch it off for good.
    enabled = keras.config.is_traceback_filtering_enabled()
    yield
    if enabled:
        keras.config.enable_traceback_filtering()


@pytest.fixture(autouse=True)
def _uncompiled_accumulation(request: pytest.FixtureRequest) -> Iterator[None]:
    # These tests are eager, and JAX would compile the branches of every micro-batch: 3 s each.
    is_eager = request.node.name.startswith("test_gradient_accumulation")
    if keras.config.backend() == "jax" and is_eager:
        import jax

        with jax.disable_jit():
            yield
    else:
        yield


@pytest.fixture(scope="package", autouse=True)
def _compiling_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Here only: with such a cache for all tests, on the oldest JAX two cases of law 7 were no
    # longer bit-identical, and the process crashed later on.
    if keras.config.backend() == "jax":
        with jax_compilation_cache(tmp_path_factory.mktemp("jax_compilation_cache")):
            yield
    else:
        yield
