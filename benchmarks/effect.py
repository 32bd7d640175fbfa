"""Draw the README's picture: the demo's training losses, with and without clipping.

    KERAS_BACKEND=jax python -m benchmarks.effect

Writes `docs/images/effect.png`.
"""

import math
from pathlib import Path

from keras_clip.demo import data, figure, training
from keras_clip.demo.options import MAX_NORM, Options
from keras_clip.monitoring import figures

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "effect.png"


def main() -> None:
    digits = data.load()
    plain = training.train("plain SGD", math.inf, digits, Options())
    clipped = training.train("clipped SGD", MAX_NORM, digits, Options())
    with figures.style():
        drawn = figures.new_figure(height=4.8)
        figure.draw_losses(drawn.subplots(), plain, clipped)
        figures.finish(drawn, OUTPUT)


if __name__ == "__main__":
    main()
