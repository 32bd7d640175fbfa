"""The processes of a torch program: started with their rank, their number and a meeting place."""

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed


def in_group(program: Callable[[int], Any]) -> Any:
    """Return the result of `program(rank)`, while all processes are connected over loopback."""
    rank, processes, meeting = sys.argv[-3:]
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=int(rank),
        world_size=int(processes),
        timeout=timedelta(seconds=60),
    )
    try:
        return program(int(rank))
    finally:
        torch.distributed.destroy_process_group()
