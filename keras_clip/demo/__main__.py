"""Entry of `python -m keras_clip.demo`."""

import math
import sys
from collections.abc import Sequence

from keras_clip.demo.options import PROGRAM, BadValue, Options, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status: 0, or 2 for a bad value."""
    options = parse(arguments)
    try:
        _run(options)
    except ImportError as error:
        print(
            f"{PROGRAM}: error: {error.name} cannot be imported. "
            'Run: pip install "keras-clip[demo]"',
            file=sys.stderr,
        )
        return 2
    except BadValue as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # The status a shell reports for a program that was interrupted.
        return 130
    return 0


def _run(options: Options) -> None:
    # Here rather than above: matplotlib or scikit-learn may be missing.
    import keras

    from keras_clip.demo import data, figure, report, training

    figure.check_format(options.output)
    make_optimizer, learning_rate = training.optimizer_factory(options)
    digits = data.load()
    name = type(make_optimizer()).__name__
    print(
        f"{len(digits.train_labels):,} handwritten digits to learn from, read pixel by pixel; "
        f"{len(digits.held_out_labels)} held out.\n"
        f"{name}, learning rate {learning_rate:g}, epochs {options.epochs}, "
        f"seed {options.seed}, on {keras.config.backend()}."
    )
    progress = report.Progress(options.epochs)

    def train(run_name: str, max_norm: float) -> training.Run:
        return training.train(run_name, make_optimizer(), max_norm, digits, options, progress.epoch)

    progress.start(f"plain {name}; ClippedOptimizer(max_norm=inf) around it only observes")
    plain = train(f"plain {name}", math.inf)
    progress.start(f"clipped {name}; ClippedOptimizer(max_norm={options.max_norm:g}) around it")
    clipped = train(f"clipped {name}", options.max_norm)
    figure.write(plain, clipped, options.output)
    print(f"\n{report.table(plain, clipped)}")
    print(f"\n{report.conclusion(plain, clipped, options.output)}")


if __name__ == "__main__":
    sys.exit(main())
