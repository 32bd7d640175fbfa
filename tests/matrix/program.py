"""Run the columns of some rows: `python -m tests.matrix.program CASES RANK PROCESSES MEETING`.

CASES is JSON: a list of rows, each a list of strategy, precision and columns. Prints the errors
of each column, with the wrapper and without.
"""

import json
import os
import sys
import traceback
from typing import Any

import keras

from tests.distribution.processes import strict_warnings
from tests.matrix.columns import COLUMNS
from tests.matrix.place import Place
from tests.matrix.precisions import FLOAT32, PRECISIONS


def errors_of(strategy: Any, precision: Any, column: str) -> dict[str, str | None]:
    """Return the error of a column with the wrapper, and that of the bare optimizer."""
    run, check, check_bare = COLUMNS[column]
    clipped, bare = (Place(strategy, precision, with_wrapper) for with_wrapper in (True, False))
    error = error_of(lambda: check(clipped, run(clipped)))
    if error is None:
        return {"wrapped": None, "bare": None}

    def run_bare() -> None:
        came_of_it = run(bare)
        if check_bare:
            check_bare(bare, came_of_it)

    return {"wrapped": error, "bare": error_of(run_bare)}


def error_of(action: Any) -> str | None:
    try:
        action()
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return None


def found(strategies: dict[str, Any], cases: list[Any]) -> list[Any]:
    results = []
    for strategy_name, precision_name, columns in cases:
        precision = PRECISIONS.get(precision_name, FLOAT32)
        precision.use()
        strategy = strategies[strategy_name]()
        results.append({name: errors_of(strategy, precision, name) for name in columns})
    return results


def strategies_of_backend(rank: int, processes: int) -> dict[str, Any]:
    backend = keras.config.backend()
    if backend == "tensorflow":
        return tensorflow_strategies(rank, processes)
    if backend == "jax":
        return jax_strategies(rank, processes)
    from tests.matrix import torch_strategies

    return torch_strategies.STRATEGIES


def tensorflow_strategies(rank: int, processes: int) -> dict[str, Any]:
    if processes > 1:
        task = {"type": "worker", "index": rank}
        cluster = {"worker": os.environ["MATRIX_WORKERS"].split(",")}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    from tests.matrix import tensorflow_strategies as found

    if processes == 1:
        found.split_processor(8)
    return found.STRATEGIES


def jax_strategies(rank: int, processes: int) -> dict[str, Any]:
    if processes > 1:
        keras.distribution.initialize(os.environ["MATRIX_WORKERS"], processes, rank)
    from tests.matrix import jax_strategies as found

    return found.STRATEGIES


def main() -> None:
    cases, rank, processes = (json.loads(argument) for argument in sys.argv[-4:-1])
    strategies = strategies_of_backend(rank, processes)
    if keras.config.backend() == "torch" and processes > 1:
        from tests.distribution.torch_group import in_group

        results = in_group(lambda rank: found(strategies, cases))
    else:
        results = found(strategies, cases)
    print(json.dumps(results), flush=True)
    # The servers of a ParameterServerStrategy do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    strict_warnings()
    main()
