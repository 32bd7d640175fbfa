"""What the tests of figures share."""

import pytest


@pytest.fixture
def unarranged(monkeypatch):
    """Leave out what arranges the parts of a figure: most of the time it takes to draw."""
    figure = pytest.importorskip("matplotlib.figure").Figure
    # Without it, no layout is found before the engine that would find it is removed.
    monkeypatch.setattr(figure, "draw_without_rendering", lambda self: None)
