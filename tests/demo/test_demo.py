"""The demo: refused arguments, training, output and figure."""

import dataclasses
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_clip.demo
from keras_clip.demo import data, figure, options, report, training
from keras_clip.demo.__main__ import main
from keras_clip.monitoring import figures
from tests.monitoring.records import make_record

# `make demo` installs the newest Keras; the oldest runs the tests of its classes only.
pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[2]
STEPS = 3


def make_run(name="plain SGD", max_norm=math.inf, losses=(2.0, 1.0), norms=(0.5, 4.0), **last):
    epochs = {"loss": [*losses[:-1], last.get("loss", losses[-1])]}
    epochs["val_accuracy"] = [0.5, last.get("accuracy", 0.9)]
    return training.Run(name, epochs, make_record(norms, max_norm))


def run_module(*arguments, **environ):
    """Run `python -m keras_clip.demo` in a separate process."""
    unset = ("TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [sys.executable, "-m", "keras_clip.demo", *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the demo on a few images: its runs, its output, its figure."""
    output = tmp_path_factory.mktemp("demo") / "figure.png"
    all_digits = data.load(STEPS * data.BATCH_SIZE)
    few = dataclasses.replace(
        all_digits,
        held_out_pixels=all_digits.held_out_pixels[:50],
        held_out_labels=all_digits.held_out_labels[:50],
    )
    records, printed = [], io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda: few)
        patch.setattr(sys, "stdout", printed)
        write = figure.write
        patch.setattr(figure, "write", lambda *args: (records.extend(args[0]), write(*args)))
        status = main(["--epochs", "1", "--seed", "3", "--output", str(output)])
    assert status == 0
    return records, printed.getvalue(), output


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("--learning-rate", "0", "a finite number above 0"),
            ("--learning-rate", "-0.1", "a finite number above 0"),
            ("--learning-rate", "nan", "a finite number above 0"),
            ("--learning-rate", "inf", "a finite number above 0"),
            ("--learning-rate", "fast", "a number"),
            ("--max-norm", "-1", "a number that is at least 0, or inf"),
            ("--max-norm", "nan", "a number that is at least 0, or inf"),
            ("--max-norm", "small", "a number"),
            ("--max-update-ratio", "-1", "a number that is at least 0, or inf"),
            ("--epochs", "0", "an integer that is at least 1"),
            ("--epochs", "1.5", "an integer"),
            ("--seed", "1.5", "an integer"),
            ("--seed", "-1", "an integer from 0 to 4294967295"),
            ("--seed", "4294967296", "an integer from 0 to 4294967295"),
        ],
    )
    def test_a_bad_number_is_refused_in_one_line(self, capsys, option, value, expected):
        with pytest.raises(SystemExit) as stop:
            options.parse("demo", [option, value])
        assert stop.value.code == 2
        assert capsys.readouterr().err == (
            f"demo: error: argument {option}: expected {expected}, received {value!r}.\n"
        )

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("missing/figure.png", "the directory of .* does not exist"),
            ("a_file/figure.png", "the directory of .* does not exist"),
            ("a_directory.png", "no file can be written at .*: Is a directory"),
            ("x" * 300 + ".png", "no file can be written at .*: File name too long"),
        ],
    )
    def test_an_output_that_cannot_be_written_is_refused(self, capsys, tmp_path, path, reason):
        (tmp_path / "a_file").touch()
        (tmp_path / "a_directory.png").mkdir()
        with pytest.raises(SystemExit) as stop:
            options.parse("demo", ["--output", str(tmp_path / path)])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert re.search(f"argument --output: {reason}", error)
        assert str(tmp_path / path) in error
        assert error.count("\n") == 1

    def test_looking_whether_the_output_can_be_written_leaves_files_as_they_are(self, tmp_path):
        old = tmp_path / "old.png"
        old.write_bytes(b"a figure")
        new = tmp_path / "new.png"
        options.parse("demo", ["--output", str(old)])
        options.parse("demo", ["--output", str(new)])
        assert old.read_bytes() == b"a figure"
        assert not new.exists()

    @pytest.mark.parametrize("output", ["figure", "figure.docx", "figure.pgf"])
    def test_a_format_matplotlib_cannot_write_is_refused(self, capsys, output):
        with pytest.raises(SystemExit) as stop:
            main(["--output", output])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("python -m keras_clip.demo: error: argument --output: expected")
        assert "a file name that ends in one of " in error
        assert ".png" in error
        assert f"received {output!r}.\n" in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize("name", ["sdg", "optimizer", "lossscaleoptimizer"])
    def test_an_unknown_optimizer_is_refused(self, capsys, name):
        with pytest.raises(SystemExit) as stop:
            options.parse("demo", ["--optimizer", name])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "argument --optimizer: expected one of adadelta, " in error
        assert f"received {name!r}.\n" in error
        assert error.count("\n") == 1

    def test_options_arrive_as_they_were_given(self):
        given = ["--optimizer", "AdamW", "--learning-rate", "0.01", "--max-norm", "inf"]
        given += ["--max-update-ratio", "0.01"]
        given += ["--epochs", "3", "--seed", "7", "--output", "figure.svg"]
        assert options.parse("demo", given) == options.Options(
            optimizer="adamw",
            learning_rate=0.01,
            max_norm=math.inf,
            max_update_ratio=0.01,
            epochs=3,
            seed=7,
            output=Path("figure.svg"),
        )


class TestEnvironment:
    @pytest.mark.any_backend
    def test_help_names_every_option(self):
        done = run_module("--help")
        assert done.returncode == 0, done.stderr
        for field in dataclasses.fields(options.Options):
            assert f"--{field.name.replace('_', '-')} " in done.stdout

    def test_make_demo_silences_the_frameworks(self):
        makefile = (ROOT / "Makefile").read_text()
        settings = re.search(r"^QUIET := (.*)$", makefile, re.MULTILINE).group(1)
        quiet = dict(pair.split("=") for pair in settings.split())
        # This name is refused after the frameworks are loaded.
        done = run_module("--optimizer", "none", **quiet)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("python -m keras_clip.demo: error: argument --optimizer")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
    def test_a_missing_package_is_named_with_the_remedy(self, capsys, monkeypatch, package):
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.setitem(sys.modules, name, None)
        for module in ("data", "figure"):
            monkeypatch.delitem(sys.modules, f"keras_clip.demo.{module}")
            monkeypatch.delattr(keras_clip.demo, module)
        assert main([]) == 2
        assert re.fullmatch(
            rf"python -m keras_clip\.demo: error: {package}[.\w]* cannot be imported\. "
            r'Run: pip install "keras-clip\[demo\]"\n',
            capsys.readouterr().err,
        )


@pytest.mark.any_backend
class TestTraining:
    def test_both_runs_start_alike_and_part_when_a_gradient_is_clipped(self, demo):
        (plain, clipped, _), *_ = demo
        one, other = plain.record["grad_norm"], clipped.record["grad_norm"]
        assert len(one) == len(other) == STEPS
        assert one[0] == other[0] > options.MAX_NORM
        assert one[1] != other[1]
        assert plain.final_loss != clipped.final_loss

    def test_the_plain_run_is_not_clipped_and_the_other_is(self, demo):
        (plain, clipped, _), *_ = demo
        assert plain.record["clip_threshold"].tolist() == [math.inf] * STEPS
        assert plain.record["clip_scale"].tolist() == [1.0] * STEPS
        np.testing.assert_allclose(clipped.record["clip_threshold"], options.MAX_NORM, rtol=1e-6)
        assert (clipped.record["clip_scale"] < 1).all()

    def test_the_third_run_is_limited_at_ten_times_the_learning_rate(self, demo):
        (_, _, limited), *_ = demo
        moved = limited.record["update_ratio"] * limited.record["update_scale"]
        assert (limited.record["update_scale"] < 1).all()
        np.testing.assert_allclose(moved, options.MAX_UPDATE_RATIO, rtol=1e-5)
        bold = training.make_optimizer(options.Options(), times=10.0)
        assert float(bold.learning_rate) == pytest.approx(1.0)

    def test_every_optimizer_of_keras_can_be_named(self):
        assert {"sgd", "adam", "adamw", "rmsprop", "lion", "ftrl"} <= set(options.OPTIMIZERS)
        for name, optimizer in options.OPTIMIZERS.items():
            made = training.make_optimizer(options.Options(optimizer=name))
            default = 0.1 if name == "sgd" else float(optimizer().learning_rate)
            assert isinstance(made, optimizer)
            assert float(made.learning_rate) == pytest.approx(default)

    def test_a_learning_rate_is_given_to_the_optimizer(self):
        for name in ("sgd", "adam"):
            given = options.Options(optimizer=name, learning_rate=0.25)
            assert float(training.make_optimizer(given).learning_rate) == 0.25

    @pytest.mark.parametrize(
        ("loss", "diverged"),
        [(0.1, False), (2.30, False), (2.31, True), (math.inf, True), (math.nan, True)],
    )
    def test_a_run_no_better_than_guessing_has_diverged(self, loss, diverged):
        assert make_run(loss=loss).diverged is diverged

    def test_a_nan_norm_is_not_lost_among_the_others(self):
        run = make_run(norms=(1.0, math.nan, 2.0))
        assert re.search(r"largest gradient norm +nan +nan\n", report.table([run, run]))


@pytest.mark.any_backend
class TestReport:
    def test_the_demo_prints_progress_table_and_conclusion(self, demo):
        _, printed, output = demo
        assert printed.count("epoch 1/1  loss ") == 3
        rows = ("final training loss", "validation accuracy", "diverged", "steps clipped")
        for row in (*rows, "steps limited"):
            assert re.search(f"^{row}  ", printed, re.MULTILINE)
        assert printed.endswith(f"The figure is in {output}.\n")

    def test_the_table_is_aligned(self):
        plain = make_run(norms=(1.0, 12345.0), loss=math.nan, accuracy=0.1)
        clipped = make_run("clipped SGD", max_norm=1.0)
        assert report.table([plain, clipped]).splitlines()[:8] == [
            "                                   plain SGD   clipped SGD",
            "----------------------------------------------------------",
            "final training loss                      nan          1.00",
            "validation accuracy                     10 %          90 %",
            "diverged                yes: loss not finite            no",
            "largest gradient norm                 12,345          4.00",
            "steps clipped                  only observed          50 %",
            "steps limited                       no limit      no limit",
        ]

    def test_the_table_tells_a_high_loss_from_one_that_is_not_finite(self):
        assert "yes: no better than guessing" in report.table([make_run(loss=2.5), make_run()])

    def test_the_conclusion_tells_who_learned(self):
        plain = make_run(loss=2.5, accuracy=0.1)
        clipped = make_run("clipped SGD", max_norm=1.0)
        lines = report.conclusion([plain, clipped], Path("demo.png")).splitlines()
        assert lines[0].startswith("You saw plain SGD diverge: it reads 10 % ")
        assert lines[1].startswith("You saw clipped SGD learn, ")
        assert lines[1].endswith(" it reads 90 %.")
        assert lines[2] == "The figure is in demo.png."

    def test_a_run_slightly_better_than_guessing_learned_little(self):
        assert "plain SGD learn little:" in report.conclusion(
            [make_run(accuracy=0.4), make_run("clipped SGD")], Path("demo.png")
        )

    @pytest.mark.parametrize(("terminal", "newlines"), [(True, 1), (False, 2)])
    def test_progress_is_one_line_on_a_terminal(self, monkeypatch, terminal, newlines):
        stream = io.StringIO()
        stream.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stdout", stream)
        progress = training._Progress()
        progress.set_params({"epochs": 2})
        for epoch in (0, 1):
            progress.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": 0.5, "grad_norm_max": 3.0})
        written = stream.getvalue()
        assert written.count("\n") == newlines
        assert ("\r" in written) is terminal
        assert "epoch 2/2  loss    1.00  validation accuracy  50 %" in written


@pytest.mark.any_backend
class TestFigure:
    def test_the_demo_writes_a_png(self, demo):
        *_, output = demo
        written = output.read_bytes()
        assert written.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(written[16:20], "big") == 1200

    @pytest.fixture
    def drawn(self, monkeypatch, tmp_path):
        def draw(plain, clipped):
            made, new_figure = [], figures.new_figure
            monkeypatch.setattr(
                figures, "new_figure", lambda height: made.append(new_figure(height)) or made[0]
            )
            figure.write([plain, clipped], tmp_path / "figure.png")
            return made[0].subfigs

        return draw

    def test_losses_have_both_names_and_the_loss_of_guessing(self, drawn):
        losses, *_ = drawn(make_run(accuracy=0.1), make_run("clipped SGD", max_norm=0.7))
        heights = [list(line.get_ydata()) for line in losses.axes[0].get_lines()]
        assert heights == [[2.0, 1.0], [2.0, 1.0], [math.log(10)] * 2]
        names = [text.get_text() for text in losses.legends[0].get_texts()]
        assert names == [
            "plain SGD: reads 10 % of new digits",
            "clipped SGD: reads 90 % of new digits",
            "guessing",
        ]

    def test_each_run_has_the_picture_of_its_record(self, drawn):
        _, *parts = drawn(make_run(), make_run("clipped SGD", max_norm=0.7))
        assert [part.get_suptitle() for part in parts] == [
            "plain SGD: gradient norm before clipping\n2 updates observed, none clipped",
            "clipped SGD: gradient norm before clipping\nclipped: 50 % of 2 updates",
        ]
        for part, thresholds in zip(parts, ([], [[0.7, 0.7]]), strict=True):
            lines = part.axes[0].get_lines()
            assert list(lines[0].get_ydata()) == [0.5, 4.0]
            dashed = [list(x.get_ydata()) for x in lines if x.get_label() == "threshold"]
            assert dashed == thresholds

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("value", "max_norm"), [(math.nan, 0.0), (math.inf, math.inf), (1e30, 1e-30), (0.0, 0.0)]
    )
    def test_runs_that_went_wrong_can_be_drawn(self, drawn, value, max_norm):
        plain = make_run(losses=(value, 2.0, value), norms=(value, 1.0, value), loss=value)
        losses, *_ = drawn(plain, make_run("clipped SGD", max_norm=max_norm))
        assert losses.axes[0].get_ylim()[1] < 8
