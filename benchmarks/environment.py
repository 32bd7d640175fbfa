"""The versions and the machine of a measurement."""

import os
import platform
from importlib import metadata

import keras

FOLDER_HELP = "where the result goes; by default results/ for a whole run, nowhere for any other"


def versions() -> dict[str, str]:
    """Return versions and the machine, for the record of a benchmark."""
    names = ("keras", keras.config.backend(), "numpy")
    found = {name: _version(name) for name in names}
    return {
        **found,
        "backend": keras.config.backend(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _version(name: str) -> str:
    for package in (name, f"{name}-cpu"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
