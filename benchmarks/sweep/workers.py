"""Processes that train cells, several on one device: compiling takes longer than training."""

import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from typing import Any

from benchmarks.sweep.cells import Cell, Extent


def trained(due: Iterator[Cell], extent: Extent, workers: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each cell with its results and the versions, or with None and the error."""
    if workers == 1:
        for cell in due:
            yield _train(cell, extent)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_train, cell, extent) for cell in islice(due, workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                running |= {pool.submit(_train, cell, extent) for cell in islice(due, 1)}


def _train(cell: Cell, extent: Extent) -> tuple[Cell, Any, Any]:
    # Here, because the process that hands out cells needs no device.
    import jax

    from benchmarks.environment import versions
    from benchmarks.sweep.training import train

    # Without the shorter floats of an accelerator, results equal those of a CPU within rounding.
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
        return cell, train(cell, extent), versions()
    except Exception:  # a failed cell, for example out of memory, stops no other
        return cell, None, traceback.format_exc()
