"""Entry of `python -m keras_clip.demo`."""

import math
import sys
from collections.abc import Sequence

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
        # The status a shell reports for a program that was interrupted.
        return 130
    return 0


def _run(arguments: Sequence[str] | None) -> None:
    # Here rather than above: matplotlib or scikit-learn may be missing.
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
    print(f"\nplain {name}; ClippedOptimizer(max_norm=inf) around it only observes", flush=True)
    plain = training.train(f"plain {name}", math.inf, digits, chosen)
    print(f"\nclipped {name}; ClippedOptimizer(max_norm={chosen.max_norm:g}) around it", flush=True)
    clipped = training.train(f"clipped {name}", chosen.max_norm, digits, chosen)
    figure.write(plain, clipped, chosen.output)
    print(f"\n{report.table(plain, clipped)}")
    print(f"\n{report.conclusion(plain, clipped, chosen.output)}")


if __name__ == "__main__":
    sys.exit(main())
