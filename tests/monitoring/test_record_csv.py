"""CSV files of records: every float64 comes back, and another file raises."""

import os
import re
import time

import numpy as np
import pytest

from keras_clip.monitoring.record_csv import (
    append_csv,
    read_csv,
    read_variables_csv,
    write_csv,
)
from tests.monitoring.records import lognormal_norms, make_record

HEADER = "step,grad_norm,clip_threshold,clip_scale,skipped,rolled_back\n"
GOOD = "0,1,1,1,0,0\n"


def any_float64(count, seed=0):
    """Return floats of all magnitudes, subnormal ones and the special ones too."""
    bits = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 2**-1074, 1.7976931348623157e308, 0.1]
    return np.concatenate([special, bits.view(np.float64)])


def any_record(count=1000):
    columns = [any_float64(count, seed) for seed in range(3)]
    length = len(columns[0])
    names = ("grad_norm", "clip_threshold", "clip_scale")
    return {
        "step": np.arange(length) + 2**60,
        **dict(zip(names, columns, strict=True)),
        "skipped": np.arange(length) % 3 == 0,
        "rolled_back": np.arange(length) % 5 == 0,
    }


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, column in expected.items():
        assert found[name].dtype == column.dtype
        np.testing.assert_array_equal(found[name], column)
        if column.dtype == np.float64:
            np.testing.assert_array_equal(np.signbit(found[name]), np.signbit(column))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.csv"


class TestRoundTrip:
    def test_every_float64_comes_back(self, path):
        record = any_record()
        # The sign of a NaN has no meaning and no text.
        record = {
            k: np.where(np.isnan(v), np.nan, v) if v.dtype.kind == "f" else v
            for k, v in record.items()
        }
        write_csv(record, path)
        assert_same(read_csv(path), record)

    def test_the_text_is_the_documented_one(self, path):
        write_csv(
            make_record([0.1, np.nan, np.inf], [0.05, 1.0, np.inf], [False, True, True]), path
        )
        assert path.read_bytes().decode() == (
            HEADER + "0,0.1,0.05,0.5,0,0\n1,nan,1.0,0.0,1,0\n2,inf,inf,0.0,1,0\n"
        )

    def test_a_record_of_no_updates(self, path):
        write_csv(make_record([]), path)
        assert path.read_text() == HEADER
        assert_same(read_csv(path), make_record([]))

    def test_variables_whose_paths_hold_commas_and_quotes(self, path):
        names = ["a/kernel", 'b,"c"/kernel', "d e\u00e9/bias", "skipped"]
        variables = {"step": np.array([0, 10]), **{n: np.array([0.1, np.nan]) for n in names}}
        write_csv(variables, path)
        assert path.read_text(encoding="utf-8").startswith('step,a/kernel,"b,""c""/kernel",')
        assert_same(read_variables_csv(path), variables)

    def test_line_ends_and_the_mark_of_a_spreadsheet_program(self, path):
        record = make_record([1.0, 2.0], 1.0)
        write_csv(record, path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        assert_same(read_csv(path), record)

    def test_a_hundred_thousand_updates_take_no_time(self, path):
        record = make_record(lognormal_norms(100_000), 1.0)
        begin = time.process_time()
        write_csv(record, path)
        read_csv(path)
        # Measured: 0.6 s for both.
        assert time.process_time() - begin < 3


class TestWhole:
    def test_what_is_there_stays_until_the_new_file_is_whole(self, path, monkeypatch):
        record = make_record([1.0])
        write_csv(record, path)
        broken = {**make_record([2.0, 3.0]), "grad_norm": np.array([2.0])}
        with pytest.raises(ValueError, match=r"one length.*'grad_norm': \(1,\)"):
            write_csv(broken, path)

        def full_disk(*args):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="no space left"):
            write_csv(make_record([2.0]), path)
        assert_same(read_csv(path), record)
        assert os.listdir(path.parent) == [path.name]

    def test_a_link_stays_a_link(self, path, tmp_path):
        link = tmp_path / "latest.csv"
        write_csv(make_record([1.0]), path)
        link.symlink_to(path)
        write_csv(make_record([2.0]), link)
        assert link.is_symlink()
        assert read_csv(path)["grad_norm"].tolist() == [2.0]

    def test_step_comes_first(self, path):
        with pytest.raises(ValueError, match=r"first column .* 'step'.*\['grad_norm'\]"):
            write_csv({"grad_norm": np.ones(2)}, path)
        assert not path.exists()


class TestAppend:
    def test_pieces_make_the_whole(self, path):
        record = any_record(100)
        for begin in range(0, 110, 40):
            append_csv({k: v[begin : begin + 40] for k, v in record.items()}, path)
        whole = path.with_name("whole.csv")
        write_csv(record, whole)
        assert path.read_bytes() == whole.read_bytes()

    @pytest.mark.parametrize("kept", [0, 10, len(HEADER), len(HEADER) + 5, len(HEADER) + 13])
    def test_goes_on_after_a_writer_was_killed(self, path, kept):
        first, second = make_record([1.5]), make_record([2.5])
        write_csv(first, path)
        os.truncate(path, kept)
        append_csv(second, path)
        assert_same(read_csv(path), second)

    def test_a_long_unfinished_line(self, path):
        write_csv(make_record([1.0]), path)
        with path.open("a") as file:
            file.write("1" * 200_000)
        append_csv(make_record([2.0]), path)
        assert read_csv(path)["grad_norm"].tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("text", ["step,a/kernel\n0,1.0\n", "hello\n", HEADER[:-1] + ",x\n"])
    def test_another_file_is_left_alone(self, path, text):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"run.csv holds other columns.*step,grad_norm"):
            append_csv(make_record([1.0]), path)
        assert path.read_text() == text


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "line", "expected", "received"),
        [
            ("", 1, "the column names step,grad_norm", "''"),
            ("\n", 1, "the column names step,grad_norm", "''"),
            ("loss,accuracy\n1,2\n", 1, "the column names step,grad_norm", "'loss,accuracy'"),
            (HEADER + GOOD + "1,x,1,1,0,0\n", 3, "a whole number, three numbers", "'1,x,1,1,0,0'"),
            (HEADER + GOOD + "1,1,1,1,0\n", 3, "a whole number, three numbers", "'1,1,1,1,0'"),
            (HEADER + "0.5,1,1,1,0,0\n", 2, "a whole number, three", "'0.5,1,1,1,0,0'"),
            (HEADER + "0,1,1,1,yes,0\n", 2, "a whole .* and twice 0 or 1", "'0,1,1,1,yes,0'"),
            (HEADER + "0,1,1,1,0,no\n", 2, "a whole .* and twice 0 or 1", "'0,1,1,1,0,no'"),
            (HEADER + GOOD + "\n1,1,1,1,0,0\n", 3, "a whole number", "''"),
            (HEADER + "9" * 30 + ",1,1,1,0,0\n", 2, "a whole number", "'" + "9" * 30),
        ],
    )
    def test_the_first_bad_line_is_told(self, path, text, line, expected, received):
        path.write_text(text)
        message = f"run.csv, line {line}: expected {expected}.*received {received}"
        with pytest.raises(ValueError, match=message):
            read_csv(path)

    def test_a_picture(self, path):
        path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00" + bytes(range(256)))
        with pytest.raises(ValueError, match=r"run.csv, line 1: expected text"):
            read_csv(path)

    def test_long_lines_are_cut(self, path):
        path.write_text(HEADER + "x" * 10_000 + "\n")
        with pytest.raises(ValueError, match=r"xxx\.\.\.") as caught:
            read_csv(path)
        assert len(str(caught.value)) < 400

    def test_an_unfinished_line_is_left_out_aloud(self, path):
        path.write_text(HEADER + "0,1.5,1.0,1.0,0,0\n1,2.")
        with pytest.warns(UserWarning, match=r"run.csv ends in the middle.*Line 3 .*'1,2\.'"):
            record = read_csv(path)
        assert record["grad_norm"].tolist() == [1.5]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (HEADER, "line 1: expected 'step' and the paths of variables"),
            ("a/kernel,step\n", "line 1: expected 'step' and the paths of variables"),
            ("step,a,a\n", "line 1: expected each variable once"),
            ("step,a\n0,1\n1,\n", "line 3: expected a whole number and 1 numbers"),
        ],
    )
    def test_no_variable_record(self, path, text, message):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_variables_csv(path)

    def test_a_missing_file(self, path):
        with pytest.raises(FileNotFoundError):
            read_csv(path)
