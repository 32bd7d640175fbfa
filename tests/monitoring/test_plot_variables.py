"""The heat map of a variable record."""

import numpy as np
import pytest

from keras_clip import plot_variables
from keras_clip.monitoring.plot_variables import shortened
from keras_clip.monitoring.record_csv import write_csv
from tests.monitoring.pictures import area, legend, pixels

pytest.importorskip("matplotlib", reason="the oldest Keras is tested without")
pytestmark = pytest.mark.any_backend

RED = "#d62728"


def make_variables(rows=4, count=50):
    generator = np.random.default_rng(0)
    norms = {f"layer_{row}/kernel": generator.lognormal(size=count) for row in range(rows)}
    return {"step": 10 * np.arange(count), **norms}


def cells(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


@pytest.mark.usefixtures("unarranged")
class TestShows:
    def test_a_row_for_each_variable_in_their_order(self):
        record = make_variables()
        figure = plot_variables(record)
        assert labels(figure) == list(record)[1:]
        np.testing.assert_array_equal(cells(figure), [record[name] for name in list(record)[1:]])
        # The first on top.
        bottom, top = figure.axes[0].get_ylim()
        assert bottom > top

    def test_many_rows_of_the_record_share_columns_that_show_the_largest(self):
        record = make_variables(3, 2000)
        expected = [record[name].reshape(200, 10).max(axis=1) for name in list(record)[1:]]
        figure = plot_variables(record)
        np.testing.assert_array_equal(cells(figure), expected)
        assert figure.axes[1].get_ylabel() == "largest norm in each cell"

    def test_steps_are_those_of_the_record(self):
        figure = plot_variables(make_variables(3, 2000))
        axis = figure.axes[0].xaxis
        shown = dict(
            zip(axis.get_ticklocs(), (t.get_text() for t in axis.get_ticklabels()), strict=True)
        )
        inside = {column: text for column, text in shown.items() if 0 <= column < 200}
        assert len(inside) > 3
        # A column has ten rows of the record, and a row has ten steps.
        assert inside == {column: f"{100 * round(column):,}" for column in inside}

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_what_is_not_finite_has_a_colour_of_its_own(self, value):
        record = make_variables(4, 1000)
        assert area(plot_variables(record), RED) == 0
        record["layer_2/kernel"][500] = value
        one = plot_variables(record)
        record["layer_2/kernel"][500:] = value
        half = plot_variables(record)
        assert 0 < area(one, RED) < area(half, RED)
        assert legend(one) == legend(half) == ["NaN or infinite"]

    def test_zeros_are_white(self):
        record = make_variables()
        record["layer_1/kernel"][:] = 0
        figure = plot_variables(record)
        assert legend(figure) == ["norm of 0: no gradient"]
        image = figure.axes[0].images[0]
        assert image.cmap(image.norm(cells(figure)[1, 0])) == (1.0, 1.0, 1.0, 1.0)

    @pytest.mark.parametrize("value", [0.0, 1.0, np.nan, 1e-320, 1.7e308])
    def test_one_value_everywhere(self, value):
        record = {"step": np.arange(3), "a/kernel": np.full(3, value)}
        assert pixels(plot_variables(record)).std() > 0

    def test_forty_rows_are_named_and_of_more_some(self):
        assert len(labels(plot_variables(make_variables(40)))) == 40
        figure = plot_variables(make_variables(150))
        assert len(labels(figure)) == 38
        assert figure.axes[0].get_ylabel() == "150 variables, every 4th is named"

    def test_a_title_and_a_file(self, tmp_path):
        figure = plot_variables(make_variables(), path=tmp_path / "a.png", title="Run 7")
        assert figure.get_suptitle() == "Run 7"
        assert (tmp_path / "a.png").stat().st_size > 5000


class TestNames:
    def test_short_ones_stay(self):
        assert shortened(["rnn/kernel", "rnn/bias"]) == ["kernel", "bias"]
        assert shortened(["rnn/kernel", "dense/kernel"]) == ["rnn/kernel", "dense/kernel"]
        assert shortened(["rnn/kernel"]) == ["rnn/kernel"]

    def test_what_all_have_in_common_goes_first(self):
        names = [
            f"encoder/block_{i}/attention/{x}/kernel" for i in (0, 1) for x in ("key", "query")
        ]
        assert shortened(names) == [
            "block_0/key/kernel",
            "block_0/query/kernel",
            "block_1/key/kernel",
            "block_1/query/kernel",
        ]

    def test_names_stay_apart(self):
        assert shortened(["a/b/kernel", "b/a/kernel"]) == ["a/b/kernel", "b/a/kernel"]

    def test_long_ones_lose_parts_in_the_midst(self):
        names = ["reader/simple_rnn_cell/recurrent_kernel", "reader/cell/kernel", "c/kernel"]
        assert shortened(names)[0] == "reader/.../recurrent_kernel"

    def test_a_part_that_is_too_long_is_cut(self):
        assert shortened([f"{'a' * 50}/kernel", "c/kernel"])[0] == f"{'a' * 15}...{'a' * 8}/kernel"

    def test_what_would_be_the_same_stays_long(self):
        names = [f"block/{layer}_of_the_attention/recurrent_kernel" for layer in ("key", "query")]
        assert len(set(shortened([*names, "c/kernel"]))) == 3


@pytest.mark.usefixtures("unarranged")
class TestAccepted:
    def test_a_monitor_and_a_file(self, tmp_path):
        record = make_variables()

        class Monitor:
            variable_norms = record

        write_csv(record, tmp_path / "variables.csv")
        expected = cells(plot_variables(record))
        np.testing.assert_array_equal(cells(plot_variables(Monitor())), expected)
        found = plot_variables(str(tmp_path / "variables.csv"))
        np.testing.assert_array_equal(cells(found), expected)

    @pytest.mark.parametrize("source", [None, 1.0, np.ones((3, 3))])
    def test_other_things_are_refused(self, source):
        with pytest.raises(TypeError, match="Expected a variable record"):
            plot_variables(source)

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            ({}, "a column 'step'"),
            ({"step": np.arange(3)}, "at least one for a variable"),
            ({"step": [], "a": []}, "at least one row"),
            ({"a": [1.0]}, "a column 'step'"),
            ({"step": [0], "a": [1.0, 2.0]}, "of one length"),
            ({"step": [0], "a": [-1.0]}, "at least 0. Received -1.0"),
            ({"step": [0], "grad_norm": [1.0], "clip_scale": [1.0]}, "for plot_clipping"),
        ],
    )
    def test_no_variable_record(self, record, message):
        with pytest.raises(ValueError, match=message):
            plot_variables(record)

    def test_a_monitor_that_kept_none(self):
        class Monitor:
            variable_norms = {"step": np.arange(0)}  # noqa: RUF012

        with pytest.raises(ValueError, match="per_variable=True"):
            plot_variables(Monitor())
