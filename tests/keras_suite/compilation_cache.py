"""A cache of programs that Keras's eager JAX tests would compile again at every step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def jax_compilation_cache(folder: Path) -> Iterator[None]:
    """Have JAX look a program up in `folder` before it compiles it.

    Outside `jit` every `cond` of Keras's gradient accumulation is compiled at every call,
    which is a third of the time that these tests take.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _update(settings)
    compilation_cache.reset_cache()
    yield
    _update(before)
    compilation_cache.reset_cache()


def _update(settings: dict[str, object]) -> None:
    import jax

    for name, value in settings.items():
        jax.config.update(name, value)
