"""What the tests of figures share."""

import pytest


@pytest.fixture
def unarranged(monkeypatch):
    """Leave out what arranges the parts of a figure: two thirds of the time it takes to draw."""
    engine = pytest.importorskip("matplotlib.layout_engine").ConstrainedLayoutEngine
    monkeypatch.setattr(engine, "execute", lambda self, figure: None)
