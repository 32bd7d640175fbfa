"""The picture of a run, for every kind of record."""

import itertools
import sys

import numpy as np
import pytest

from keras_clip import plot_clipping
from keras_clip.monitoring import figures
from tests.monitoring.pictures import area, legend, pixels
from tests.monitoring.records import lognormal_norms, make_record

matplotlib = pytest.importorskip("matplotlib", reason="the oldest Keras is tested without")
pytestmark = pytest.mark.any_backend


def bad_record(count):
    norms = lognormal_norms(count)
    norms[[5, 9, count // 2, count - 1]] = np.nan, np.inf, 0.0, 50.0
    skipped = np.isin(np.arange(count), [9, count - 1])
    return make_record(norms, 1.2, skipped)


KINDS = {
    "fixed": lambda norms: make_record(norms, 1.2),
    "scheduled": lambda norms: make_record(norms, np.linspace(2, 0.5, norms.size)),
    "adaptive": lambda norms: make_record(
        norms, np.where(np.arange(norms.size) < 10, np.inf, np.maximum.accumulate(norms) / 2)
    ),
    "observed": lambda norms: make_record(norms),
    "norms alone": lambda norms: {"grad_norm": norms},
    "threshold of 0": lambda norms: make_record(norms, 0.0),
    "exploding": lambda norms: make_record(norms * np.geomspace(1, 1e200, norms.size), 1.0),
    "constant": lambda norms: make_record(np.ones_like(norms), 1.0),
    "zeros": lambda norms: make_record(np.zeros_like(norms), 1.0),
    "all NaN": lambda norms: make_record(np.full_like(norms, np.nan), 1.0),
    "all skipped": lambda norms: make_record(norms, 1.0, True),
    "at the ends of float64": lambda norms: make_record(np.where(norms > 1, 1.7e308, 5e-324), 1.0),
}


@pytest.mark.usefixtures("unarranged")
class TestEveryRecord:
    @pytest.mark.parametrize(
        ("kind", "count"),
        [
            *((kind, (100, 1000)[place % 2]) for place, kind in enumerate(KINDS)),
            ("fixed", 1),
            ("observed", 1),
            ("exploding", 1000),
            ("zeros", 1000),
        ],
    )
    def test_is_drawn_without_a_warning(self, kind, count):
        assert pixels(plot_clipping(KINDS[kind](lognormal_norms(count)))).std() > 0

    def test_an_empty_one(self):
        figure = plot_clipping(make_record([]))
        assert tuple(figure.get_size_inches() * figure.dpi) == (1200, 720)
        assert pixels(figure).std() > 0
        assert "0 updates" in figure.get_suptitle()

    def test_a_hundred_thousand_updates_are_drawn_as_columns(self):
        figure = plot_clipping(bad_record(100_000))
        line = [line for line in figure.axes[0].lines if line.get_label() == "median norm"]
        assert len(line[0].get_xdata()) == 300
        assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) < 1000

    def test_a_column_shows_its_smallest_median_and_largest_norm(self):
        norms = lognormal_norms(3000)
        figure = plot_clipping(make_record(norms))
        columns = norms.reshape(300, 10)
        median = next(x for x in figure.axes[0].lines if x.get_label() == "median norm")
        np.testing.assert_array_equal(median.get_ydata(), np.median(columns, axis=1))
        corners = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
        assert set(columns.min(axis=1)) | set(columns.max(axis=1)) <= set(corners)


@pytest.mark.usefixtures("unarranged")
class TestShows:
    @pytest.mark.parametrize("count", [200, 4000])
    def test_what_is_clipped_is_coloured(self, count):
        norms = lognormal_norms(count)
        some = area(plot_clipping(make_record(norms, 1.0)), figures.LIGHT)
        most = area(plot_clipping(make_record(norms, 0.3)), figures.LIGHT)
        assert area(plot_clipping(make_record(norms)), figures.LIGHT) == 0
        assert 0.01 < some < most

    def test_what_is_cut_off_lies_between_threshold_and_largest_norm(self):
        norms = lognormal_norms(3000)
        figure = plot_clipping(make_record(norms, 0.8))
        cut = next(
            part for part in figure.axes[0].collections if part.get_label() == "cut off by clipping"
        )
        assert matplotlib.colors.same_color(cut.get_facecolor(), figures.LIGHT)
        corners = np.concatenate([path.vertices[:, 1] for path in cut.get_paths()])
        largest = norms.reshape(300, 10).max(axis=1)
        assert corners.min() == 0.8
        assert set(largest[largest > 0.8]) <= set(corners)

    @pytest.mark.parametrize("count", [200, 4000])
    def test_the_line_of_text_and_the_legend_say_what_happened(self, count):
        figure = plot_clipping(bad_record(count))
        record = bad_record(count)
        clipped = np.sum((record["clip_scale"] < 1) & ~record["skipped"]) / (count - 2)
        assert figure.get_suptitle() == (
            "Gradient norm before clipping\n"
            f"clipped: {100 * clipped:.0f} % of {count - 2:,} updates,  skipped: 2,  "
            "NaN or infinite: 2"
        )
        assert {"threshold", "NaN or infinite", "norm of 0", "skipped"} <= set(legend(figure))
        assert legend(figure).count("skipped") == 1

    @pytest.mark.parametrize("count", [200, 4000])
    def test_the_threshold_as_it_moved(self, count):
        record = KINDS["scheduled"](lognormal_norms(count))
        line = next(
            line for line in plot_clipping(record).axes[0].lines if line.get_label() == "threshold"
        )
        expected = np.interp(line.get_xdata(), record["step"], record["clip_threshold"])
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=0.05)

    def test_an_infinite_threshold_is_said_and_not_drawn(self):
        figure = plot_clipping(make_record(lognormal_norms(50)))
        assert figure.get_suptitle().endswith("\n50 updates observed, none clipped")
        assert "threshold" not in legend(figure)

    def test_without_a_threshold_no_share_is_claimed(self):
        figure = plot_clipping({"grad_norm": lognormal_norms(50)})
        assert figure.get_suptitle().endswith("\n50 updates")

    def test_the_share_in_the_strip(self):
        # All of the first half, none of the second.
        norms = np.repeat([2.0, 1.0], 300)
        strip = plot_clipping(make_record(norms, 1.5)).axes[2]
        shares, edges, _ = strip.patches[0].get_data()
        assert shares.tolist() == [100.0] * 30 + [0.0] * 30
        assert edges[[0, -1]].tolist() == [0, 600]

    def test_the_histogram_counts_each_finite_norm_once(self):
        figure = plot_clipping(bad_record(500))
        bars = sum(bar.get_width() for bar in figure.axes[1].patches)
        assert bars == 500 - 3

    def test_a_title(self):
        figure = plot_clipping(make_record(lognormal_norms(50)), title="Run 7")
        assert figure.get_suptitle().startswith("Run 7\n50 updates")


class TestFigure:
    def test_the_longest_line_of_text_fits(self):
        record = make_record(np.full(10**6, np.nan), 1.0, np.arange(10**6) % 2 == 0)
        record["clip_scale"][1] = 0.5
        figure = plot_clipping(record)
        assert "less than 0.01 % of 500,000 updates,  skipped: 500,000" in figure.get_suptitle()
        assert figure._suptitle.get_window_extent().x1 < 1200

    @pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
    def test_is_written(self, tmp_path, suffix):
        path = tmp_path / f"run.{suffix}"
        plot_clipping(make_record(lognormal_norms(50), 1.0), path=path)
        assert path.stat().st_size > 5000

    def test_nothing_lies_upon_each_other(self):
        figure = plot_clipping(bad_record(200))
        parts = [figure._suptitle, *figure.axes[:1], figure.axes[2], figure.legends[0]]
        boxes = [part.get_tightbbox() for part in parts]
        for above, below in itertools.pairwise(boxes):
            assert above.y0 >= below.y1 - 0.1
        assert boxes[-1].y0 >= 0
        assert boxes[1].x1 <= figure.axes[1].get_tightbbox().x0

    def test_looks_the_same_whatever_a_notebook_has_set(self):
        record = make_record(lognormal_norms(50), 1.0)
        plain = pixels(plot_clipping(record))
        assert plain.std() > 0
        with matplotlib.rc_context(
            {"font.size": 30, "axes.facecolor": "black", "ytick.color": "red"}
        ):
            np.testing.assert_array_equal(pixels(plot_clipping(record)), plain)

    def test_leaves_settings_and_pyplot_alone(self, tmp_path):
        from matplotlib import pyplot

        with matplotlib.rc_context({"font.size": 7}):
            plot_clipping({"grad_norm": [1.0, 2.0]}, path=tmp_path / "run.png")
            assert matplotlib.rcParams["font.size"] == 7
        assert not pyplot.get_fignums()

    def test_without_matplotlib_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'keras-clip\[plot\]'"):
            plot_clipping(make_record(lognormal_norms(50)))
