"""Child programs, alone or as the workers of a cluster, that never outlive the test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# On two busy cores the longest, the rows of a matrix, take minutes.
SECONDS = 900


def start(module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m module arguments`, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def free_ports(number: int) -> list[int]:
    """Return free ports; all are held until all are chosen, so that they differ."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start_workers(number: int, module: str, *arguments: str) -> list[subprocess.Popen[str]]:
    """Start a process for each worker of a new cluster; `TF_CONFIG` names the others."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]
    tasks = [{"type": "worker", "index": index} for index in range(number)]
    return [
        start(
            module,
            *arguments,
            TF_CONFIG=json.dumps({"cluster": {"worker": addresses}, "task": task}),
        )
        for task in tasks
    ]


def end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Kill the processes that still run, with their children."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.communicate()


def results(processes: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """Return the last line of each process, read as JSON; all must succeed."""
    deadline = time.monotonic() + SECONDS
    try:
        found = []
        for process in processes:
            output, errors = process.communicate(timeout=deadline - time.monotonic())
            assert process.returncode == 0, errors[-3000:]
            found.append(json.loads(output.splitlines()[-1]))
        return found
    finally:
        end(processes)


def exit_codes_after_first_failure(processes: Sequence[subprocess.Popen[str]]) -> list[int]:
    """Wait until one fails or all end; end the others, as the supervisor of a cluster does."""
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            codes = [process.poll() for process in processes]
            if None not in codes or any(codes):
                break
            time.sleep(0.1)
    finally:
        end(processes)
    return [process.returncode for process in processes]
