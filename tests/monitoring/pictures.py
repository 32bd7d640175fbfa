"""Looking at a figure."""

import io

import numpy as np


def pixels(figure, dpi=60):
    """Return the drawn picture, height x width x 3, from 0 to 1."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba", dpi=dpi)
    width, height = (round(size * dpi) for size in figure.get_size_inches())
    image = np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)
    return image[..., :3] / 255


def area(figure, colour):
    """Return the share of the picture that has a colour."""
    from matplotlib.colors import to_rgb

    return float(np.mean(np.abs(pixels(figure) - to_rgb(colour)).max(axis=-1) < 0.02))


def legend(figure):
    """Return the words of the legend."""
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []
