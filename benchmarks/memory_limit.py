"""The least work of a clip: read all gradients, and write them if it clips."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.interleaved import Variant

THREADS = 2
# Below this, waking a second thread takes longer than the whole work of the first.
_FEWEST_TO_SHARE = 2**17


def limits(arrays: list[np.ndarray]) -> dict[str, Variant]:
    """Return variants that read the arrays once, and that read them twice and write them once.

    `threadpoolctl` sets the number of threads of NumPy's `dot`.

    Args:
        arrays: one for each set of data, each one-dimensional.
    """
    pool = ThreadPoolExecutor(THREADS)
    out = np.empty_like(arrays[0])
    middle = len(out) // 2
    halves = [slice(0, middle), slice(middle, None)]
    factor = np.float32(0.5)

    def read(array: np.ndarray) -> float:
        with np.errstate(over="ignore"):
            return float(np.dot(array, array))

    def read_twice_and_write(array: np.ndarray) -> float:
        norm = read(array)
        if len(out) < _FEWEST_TO_SHARE:
            np.multiply(array, factor, out=out)
        else:
            list(pool.map(lambda part: np.multiply(array[part], factor, out=out[part]), halves))
        return norm + float(out[0])

    return {
        "nothing clipped": Variant(arrays.__getitem__, read),
        "all clipped": Variant(arrays.__getitem__, read_twice_and_write),
    }
