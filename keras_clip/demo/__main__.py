"""Entry of `python -m keras_clip.demo`."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_clip.demo.options import Options
    from keras_clip.optimizer import ClippedOptimizer

PROGRAM = "python -m keras_clip.demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status: 0, or 2 if a package is missing."""
    try:
        _run(arguments)
    except ImportError as error:
        print(
            f"{PROGRAM}: error: {error.name} cannot be imported. "
            'Run: pip install "keras-clip[demo]"',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        # The status that a shell reports for an interrupted program.
        return 130
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    # Imported here, because matplotlib or scikit-learn may be missing.
    import keras

    from keras_clip.demo import data, figure, options, report, training

    chosen = options.parse(PROGRAM, arguments)
    digits = data.load()
    optimizer = training.make_optimizer(chosen)
    name = type(optimizer).__name__
    print(
        f"{len(digits.train_labels):,} handwritten digits to learn from, read pixel by pixel; "
        f"{len(digits.held_out_labels)} held out.\n"
        f"{name}, learning rate {float(optimizer.learning_rate):g}, epochs {chosen.epochs}, "
        f"seed {chosen.seed}, on {keras.config.backend()}."
    )
    runs = [
        training.train(title, clipped, digits, chosen)
        for title, clipped in _announced(name, chosen)
    ]
    figure.write(runs, chosen.output)
    print(f"\n{report.table(runs)}")
    print(f"\n{report.conclusion(runs, chosen.output)}")


def _announced(name: str, chosen: "Options") -> Iterator[tuple[str, "ClippedOptimizer"]]:
    """Print what comes next, and yield its name and its optimizer."""
    from keras_clip.demo.training import make_optimizer
    from keras_clip.optimizer import ClippedOptimizer

    print(f"\nplain {name}; ClippedOptimizer(max_norm=inf) around it only observes", flush=True)
    yield f"plain {name}", ClippedOptimizer(make_optimizer(chosen), math.inf)
    print(f"\nclipped {name}; ClippedOptimizer(max_norm={chosen.max_norm:g}) around it", flush=True)
    yield f"clipped {name}", ClippedOptimizer(make_optimizer(chosen), chosen.max_norm)
    ratio = chosen.max_update_ratio
    print(
        f"\nlimited {name}, ten times the learning rate; "
        f"ClippedOptimizer(max_norm=inf, max_update_ratio={ratio:g}) around it",
        flush=True,
    )
    bold = make_optimizer(chosen, times=10.0)
    yield f"limited {name}, rate x 10", ClippedOptimizer(bold, math.inf, max_update_ratio=ratio)


if __name__ == "__main__":
    sys.exit(main())
