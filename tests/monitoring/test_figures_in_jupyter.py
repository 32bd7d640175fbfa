"""A figure that is the value of a notebook's cell is shown as one picture."""

import numpy as np
import pytest

from keras_clip import plot_clipping

pytest.importorskip("matplotlib", reason="the oldest Keras is tested without")
interactive = pytest.importorskip("IPython.core.interactiveshell", reason="it has no Jupyter")


@pytest.fixture
def shell():
    """A shell of this process, as new."""
    yield interactive.InteractiveShell()
    interactive.InteractiveShell.clear_instance()


@pytest.mark.parametrize("inline", [False, True])
def test_shows_itself_with_and_without_pyplots_inline_figures(shell, inline):
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib import _pylab_helpers

    if inline:
        # IPython does this once pyplot is imported in a notebook.
        select_figure_formats(shell, {"png"})
    shown, _ = shell.display_formatter.format(plot_clipping({"grad_norm": np.ones(50)}))
    assert set(shown) == {"text/plain", "image/png"}
    # The figures that pyplot would show again at the end of the cell.
    assert not _pylab_helpers.Gcf.get_all_fig_managers()
