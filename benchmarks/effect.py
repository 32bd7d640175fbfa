"""Draw the README's picture: the training losses of the demo's three runs.

    KERAS_BACKEND=jax python -m benchmarks.effect

Writes `docs/images/effect.png`.
"""

import math
from pathlib import Path

from keras_clip.demo import data, figure, training
from keras_clip.demo.options import Options
from keras_clip.demo.training import make_optimizer
from keras_clip.monitoring import figures
from keras_clip.optimizer import ClippedOptimizer

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "effect.png"


def main() -> None:
    digits, options = data.load(), Options()
    plain, clipped = (make_optimizer(options) for _ in range(2))
    bold = make_optimizer(options, times=10.0)
    limits = {"max_norm": math.inf, "max_update_ratio": options.max_update_ratio}
    optimizers = {
        "plain SGD": ClippedOptimizer(plain, math.inf),
        "clipped SGD": ClippedOptimizer(clipped, options.max_norm),
        "limited SGD, rate x 10": ClippedOptimizer(bold, **limits),
    }
    runs = [
        training.train(name, optimizer, digits, options) for name, optimizer in optimizers.items()
    ]
    with figures.style():
        drawn = figures.new_figure(height=4.8)
        figure.draw_losses(drawn.subplots(), runs)
        figures.finish(drawn, OUTPUT)


if __name__ == "__main__":
    main()
