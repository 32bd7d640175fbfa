"""The regret of a rule, by hand."""

import pytest

from benchmarks.sweep.regret import regrets

RATES = [0.1, 0.3, 1.0, 3.0]
SEEDS = [0, 1, 100]


def cell(**settings):
    """Return a cell in which each setting has a score for each rate and seed."""
    return {
        "settings": list(settings),
        "learning_rates": RATES,
        "seeds": SEEDS,
        "score": list(settings.values()),
    }


def fixed(one):
    # Best at 0.3, so that the cells are 0.1, 0.3 and 1.
    none = [[0.5, 0.7, 0.0], [0.8, 0.9, 0.0], [0.1, 0.1, 0.0], [0.0, 0.0, 0.0]]
    found = cell(none=none, one=one)
    others = [
        "max_update_ratio=0.003",
        "max_update_ratio=0.01",
        "max_norm=1, max_update_ratio=0.01",
    ]
    found["settings"] = ["none", "max_norm=1", *others]
    found["score"] += [none] * 3
    return found


@pytest.mark.any_backend
def test_regrets_of_three_learning_rates():
    one = [[0.6, 0.6, 0.9], [0.7, 0.7, 0.9], [0.1, 0.5, 0.9], [1.0, 1.0, 0.9]]
    low = [[0.5, 0.5, 0.1], [0.6, 0.6, 0.9], [0.1, 0.9, 0.3]]
    high = [[0.2, 0.2, 0.9], [0.3, 0.3, 0.2], [0.4, 0.4, 0.4]]
    rule = cell(low=low, high=high) | {
        "settings": ["clipping=0.01", "clipping=1"],
        "learning_rates": RATES[:3],
    }
    found = {
        "lora/sgd/number/constant": fixed(one),
        "lora/sgd/adaptive_gradient_clipping/constant": rule,
    }
    by_title = {own.title: own for own in regrets(found)}
    assert by_title["no clip"].default == pytest.approx([0.0, 0.0, 20.0])
    assert by_title["`max_norm=1`"].default == pytest.approx([0.0, 15.0, 0.0])
    # At 1 all of the fixed thresholds have a failed run, so a failed run does not count.
    agc = by_title["`AdaptiveGradientClipping()`"]
    assert agc.default == pytest.approx([10.0, 25.0, -20.0])
    assert agc.tuned == pytest.approx([40.0, 25.0, -10.0])
    assert agc.names == ["LoRA, sgd"] * 3
    assert not agc.diverged.any()
    assert not by_title["`ZClip()`"].default.size


@pytest.mark.any_backend
def test_a_rule_has_diverged_if_some_threshold_trains_every_seed():
    one = [[0.6, 0.6, 0.9], [0.7, 0.7, 0.9], [0.5, 0.5, 0.9], [1.0, 1.0, 0.9]]
    by_title = {own.title: own for own in regrets({"lora/adam/number/constant": fixed(one)})}
    assert by_title["no clip"].diverged.tolist() == [0.0, 0.0, 1.0]
    assert by_title["`max_norm=1`"].diverged.tolist() == [0.0, 0.0, 0.0]
