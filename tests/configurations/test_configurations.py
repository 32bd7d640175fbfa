"""Options at random: weights, counters and every row of the record equal the emulation's."""

import os
from pathlib import Path

import pytest

from tests.configurations.comparison import check
from tests.configurations.drawing import draw

# A draw takes a tenth of a second on torch, and one or two seconds with compiled steps.
FEW = 100 if os.environ["KERAS_BACKEND"] == "torch" else 16
MANY = int(os.environ.get("KERAS_CLIP_CONFIGURATIONS", "1000"))


def _check(number: int, folder: Path) -> None:
    configuration = draw(number)
    try:
        check(configuration, folder)
    except Exception as error:
        error.add_note(f"Configuration {number}: {configuration!r}")
        raise


@pytest.mark.parametrize("number", range(FEW))
def test_options_drawn_at_random_do_what_the_emulation_does(number, tmp_path):
    _check(number, tmp_path)


@pytest.mark.endurance
@pytest.mark.parametrize("number", range(FEW, FEW + MANY))
def test_many_options_drawn_at_random_do_what_the_emulation_does(number, tmp_path):
    _check(number, tmp_path)
