"""The rows of the matrix, and which of their cells Keras itself does not support."""

import json
from dataclasses import dataclass

COLUMNS = ("fit", "own loop", "accumulation", "skip", "save and resume")
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
EIGHT_DEVICES = (("XLA_FLAGS", "--xla_force_host_platform_device_count=8"),)
TWO_DEVICES = (("XLA_FLAGS", "--xla_force_host_platform_device_count=2"),)
LOOPBACK = (("GLOO_SOCKET_IFNAME", "lo"),)


@dataclass(frozen=True)
class Row:
    """A strategy and a precision.

    Args:
        backend: of Keras.
        strategy: its name in the backend's module of strategies.
        precision: its name in `precisions`.
        processes: how many run it together.
        environment: variables that they need before they start.
        alone: whether no other row runs in its processes.
        unsupported: columns in which the bare optimizer raises.
        refused: columns in which the wrapper raises that it cannot do it there.
        not_tried: why no column was tried.
    """

    backend: str
    strategy: str
    precision: str = "float32"
    processes: int = 1
    environment: tuple[tuple[str, str], ...] = ()
    alone: bool = False
    unsupported: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    not_tried: str | None = None

    @property
    def label(self) -> str:
        if self.precision == "float32":
            return f"{TITLES[self.backend]}: {self.strategy}"
        place = "" if self.strategy.startswith("one ") else f", {self.strategy}"
        return f"{TITLES[self.backend]}: {self.precision}{place}"

    def case(self, columns: list[str]) -> tuple[str, str, list[str]]:
        """Return the arguments of `program`."""
        return self.strategy, self.precision, columns

    @property
    def launch(self) -> str:
        """Equal for rows that run in the same processes."""
        return json.dumps([self.processes, self.environment, self.label if self.alone else ""])


def precisions(backend: str, strategy: str, **environments: tuple[tuple[str, str], ...]) -> list:
    names = ("mixed_float16", "mixed_bfloat16", "float64", "loss_scale_factor", "float8")
    return [Row(backend, strategy, name, environment=environments.get(name, ())) for name in names]


ROWS = [
    Row("tensorflow", "one device"),
    Row("tensorflow", "OneDeviceStrategy"),
    Row("tensorflow", "MirroredStrategy, 2 replicas"),
    Row("tensorflow", "MirroredStrategy, 8 replicas"),
    Row("tensorflow", "CentralStorageStrategy, 2 devices", unsupported=("accumulation",)),
    Row(
        "tensorflow",
        "MultiWorkerMirroredStrategy, 2 processes",
        processes=2,
        unsupported=("fit",),
    ),
    Row(
        "tensorflow",
        "ParameterServerStrategy, 1 worker",
        alone=True,
        unsupported=("fit",),
        refused=("skip",),
    ),
    Row("tensorflow", "TPUStrategy", not_tried="not tried: there was no TPU"),
    *precisions("tensorflow", "one device"),
    Row("tensorflow", "MirroredStrategy, 2 replicas", "mixed_float16"),
    Row("jax", "one device"),
    Row("jax", "DataParallel, 8 devices", environment=EIGHT_DEVICES),
    Row("jax", "ModelParallel, 8 devices", environment=EIGHT_DEVICES),
    Row("jax", "DataParallel, 2 processes", processes=2, environment=TWO_DEVICES),
    Row("jax", "ModelParallel, 2 processes", processes=2, environment=TWO_DEVICES),
    *precisions("jax", "one device", float64=(("JAX_ENABLE_X64", "1"),)),
    Row("torch", "one process"),
    Row(
        "torch",
        "DistributedDataParallel, 2 processes",
        processes=2,
        environment=LOOPBACK,
        unsupported=("fit",),
    ),
    Row(
        "torch",
        "FSDP2 (DTensor), 2 processes",
        processes=2,
        environment=LOOPBACK,
        unsupported=("accumulation",),
    ),
    *precisions("torch", "one process"),
]
