"""The fixtures of the tests of figures."""

import pytest


@pytest.fixture
def unarranged(monkeypatch):
    """Skip the layout of a figure, which takes most of the time to draw it."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    # Without this, the engine would be removed before it has found a layout.
    monkeypatch.setattr(figure, "draw_without_rendering", lambda self: None)
