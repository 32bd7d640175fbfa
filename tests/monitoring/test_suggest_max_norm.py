"""The suggested threshold: the rule in NumPy, and suggestions for runs of every kind."""

import dataclasses

import numpy as np
import pytest

from keras_clip import Suggestion, suggest_max_norm
from tests.monitoring.records import lognormal_norms, make_record


def rule(norms):
    """Return the documented formula, in a loop over groups of 50 updates or a few more."""
    first, second = norms[: len(norms) // 2], norms[len(norms) // 2 :]
    if np.median(second) > 10 * np.median(first):
        norms = first
    ratios = []
    for group in np.array_split(norms, max(1, len(norms) // 50)):
        ratios.extend(norm / np.median(group) for norm in group)
    tail = np.sort(ratios)[int(np.floor(0.99 * (len(ratios) - 1)))]
    factor = max(0.5, (3 / tail) ** 2)
    return float(f"{min(np.percentile(norms, 90), factor * np.median(norms)):.2g}")


def spiky(count=1000, share=0.05, height=1e6):
    norms = lognormal_norms(count, spread=0.2)
    norms[np.random.default_rng(1).random(count) < share] *= height
    return norms


def falling():
    """Return norms that begin a hundred times as long as they end."""
    return lognormal_norms(1000, spread=0.2) * np.where(np.arange(1000) < 150, 100, 1)


def astray(share=0.7):
    """Return norms that grow by twelve orders of magnitude, and stay there."""
    return lognormal_norms(1000, spread=0.2) * np.where(np.arange(1000) < 1000 * share, 1, 1e12)


RUNS = {
    "calm": lognormal_norms(1000, spread=0.3),
    "uneven": lognormal_norms(1000, spread=0.5),
    "very uneven": lognormal_norms(1000, spread=1.0),
    "spiky": spiky(),
    "falling": falling(),
    "astray late": astray(0.7),
    "astray early": astray(0.3),
    "short": lognormal_norms(20),
    "constant": np.full(50, 0.3),
    "growing": np.geomspace(1e-3, 1e3, 200),
}


class TestRule:
    @pytest.mark.parametrize("name", RUNS)
    def test_is_the_documented_formula(self, name):
        assert suggest_max_norm({"grad_norm": RUNS[name]}).max_norm == rule(RUNS[name])

    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    @pytest.mark.parametrize("name", RUNS)
    def test_has_the_unit_of_the_norms(self, name, unit):
        expected = suggest_max_norm({"grad_norm": RUNS[name]}).max_norm
        found = suggest_max_norm({"grad_norm": RUNS[name] * unit}).max_norm
        # The last of two digits may be rounded the other way.
        assert found == pytest.approx(expected * unit, rel=0.05)

    def test_calm_norms_get_a_safety_net(self):
        suggestion = suggest_max_norm({"grad_norm": RUNS["calm"]})
        assert 0.05 < suggestion.clipped_fraction[suggestion.max_norm] < 0.15
        assert "The 90th percentile of 1,000 norms, a safety net" in suggestion.reason

    @pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
    @pytest.mark.parametrize("height", [10.0, 1e6, 1e30, 1e200])
    def test_spikes_do_not_carry_it_away(self, share, height):
        suggestion = suggest_max_norm({"grad_norm": spiky(share=share, height=height)})
        assert 0.4 < suggestion.max_norm < 0.8
        assert "Half the median" in suggestion.reason
        assert "times as long as those around it" in suggestion.reason

    def test_a_few_spikes_leave_it_a_safety_net(self):
        assert suggest_max_norm({"grad_norm": spiky(share=0.004)}).max_norm == 1.3

    def test_a_high_beginning_does_not_decide(self):
        suggestion = suggest_max_norm({"grad_norm": falling()})
        assert 1.5 < suggestion.max_norm < 10
        assert "a part of the run whose norms are far above" in suggestion.reason

    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
    def test_a_run_that_went_astray_is_judged_by_its_beginning(self, share):
        suggestion = suggest_max_norm({"grad_norm": astray(share)})
        assert 0.3 < suggestion.max_norm < 10

    def test_says_that_it_took_the_first_half(self):
        reason = suggest_max_norm({"grad_norm": astray(0.6)})
        assert "500 norms of the first half, after which norms grew" in reason.reason

    def test_an_end_in_nan(self):
        norms = np.concatenate([RUNS["calm"], np.full(3000, np.nan), [np.inf]])
        suggestion = suggest_max_norm({"grad_norm": norms})
        assert suggestion.max_norm == rule(RUNS["calm"])
        assert "left out: 3,001 NaN or infinite" in suggestion.reason

    def test_zeros_are_left_out(self):
        norms = np.concatenate([np.zeros(3000), RUNS["calm"]])
        suggestion = suggest_max_norm({"grad_norm": norms})
        assert suggestion.max_norm == rule(RUNS["calm"])
        assert "left out: 3,000 of norm 0" in suggestion.reason
        assert suggestion.percentiles[50] == 0

    def test_skipped_updates_are_left_out(self):
        norms = np.concatenate([RUNS["calm"], np.full(500, 1e5)])
        record = make_record(norms, 1.0, np.arange(1500) >= 1000)
        suggestion = suggest_max_norm(record)
        assert suggestion.max_norm == rule(RUNS["calm"])
        assert "left out: 500 skipped" in suggestion.reason
        assert suggestion.percentiles[100] == RUNS["calm"].max()

    def test_rolled_back_updates_are_left_out(self):
        norms = np.concatenate([RUNS["calm"], np.full(1500, 1e5)])
        rolled_back = np.arange(2500) >= 1000
        suggestion = suggest_max_norm({"grad_norm": norms, "rolled_back": rolled_back})
        assert suggestion.max_norm == rule(RUNS["calm"])
        assert "left out: 1,500 rolled back" in suggestion.reason

    def test_norms_at_the_end_of_float64(self):
        assert suggest_max_norm({"grad_norm": np.full(50, 1e306)}).max_norm == 1e306
        assert suggest_max_norm({"grad_norm": np.full(50, 5e-324)}).max_norm == 5e-324


class TestTells:
    def test_shares_and_percentiles(self):
        norms = RUNS["calm"]
        suggestion = suggest_max_norm({"grad_norm": norms})
        assert list(suggestion.percentiles) == [5, 25, 50, 75, 90, 95, 99, 100]
        assert suggestion.max_norm in suggestion.clipped_fraction
        for percent, norm in suggestion.percentiles.items():
            assert norm == np.percentile(norms, percent)
            assert float(f"{norm:.2g}") in suggestion.clipped_fraction
        for threshold, share in suggestion.clipped_fraction.items():
            assert share == np.mean(norms > threshold)

    def test_shows_itself_as_a_table(self):
        suggestion = suggest_max_norm({"grad_norm": np.repeat([1.0, 2.0], [91, 9])})
        assert str(suggestion) == (
            "Suggested: max_norm=1\n"
            "The 90th percentile of 100 norms, a safety net; it would have clipped 9 % of these "
            "updates.\n\n"
            "max_norm   would have clipped of these updates\n"
            "       1   9 %  <- suggested\n"
            "       2   0 %"
        )

    def test_without_a_threshold_nothing_is_known_of_clipping(self):
        suggestion = suggest_max_norm({"grad_norm": RUNS["calm"]})
        assert suggestion.current_clipped_fraction is None
        assert suggestion.warning is None

    def test_observed(self):
        suggestion = suggest_max_norm(make_record(RUNS["calm"]))
        assert suggestion.current_clipped_fraction == 0
        assert suggestion.warning is None
        assert "were clipped" not in suggestion.reason

    def test_some_clipping_is_no_warning_but_said(self):
        norms = np.repeat([1.0, 2.0], [50, 50])
        suggestion = suggest_max_norm(make_record(norms, 1.5))
        assert suggestion.current_clipped_fraction == 0.5
        assert suggestion.warning is None
        assert "50 % of the recorded updates were clipped" in suggestion.reason

    def test_more_than_half_is_a_warning(self):
        norms = np.repeat([1.0, 2.0], [49, 51])
        suggestion = suggest_max_norm(make_record(norms, 0.5))
        assert suggestion.current_clipped_fraction == 1
        assert "The threshold in force, 0.5, clipped 100 %" in suggestion.warning
        assert "with max_norm=2 steps of SGD are up to 4 times as long" in suggestion.warning
        assert f"Warning: {suggestion.warning}" in str(suggestion)

    def test_a_clipper_without_a_threshold_is_warned_about_as_well(self):
        record = make_record(np.full(100, 2.0), 1.0)
        record["clip_threshold"] = np.full(100, np.nan)
        assert "The clipper clipped 100 %" in suggest_max_norm(record).warning

    def test_is_the_same_every_time_and_fixed(self):
        record = make_record(RUNS["spiky"], 1.0)
        suggestion = suggest_max_norm(record)
        assert suggestion == suggest_max_norm(record)
        assert isinstance(suggestion, Suggestion)
        with pytest.raises(dataclasses.FrozenInstanceError):
            suggestion.max_norm = 1.0


class TestTooLittle:
    @pytest.mark.parametrize(
        ("norms", "message"),
        [
            ([], "Received 0 of 0"),
            (np.ones(19), r"at least 20 updates .* Received 19 of 19\. Observe a longer run"),
            (np.zeros(100), "Received 0 of 100, and 100 that are 0: look for what keeps"),
            (np.full(100, np.nan), "Received 0 of 100, and 100 that are NaN or infinite: lower"),
        ],
    )
    def test_is_an_error_that_says_so(self, norms, message):
        with pytest.raises(ValueError, match=message):
            suggest_max_norm({"grad_norm": norms})

    def test_says_how_many_were_rolled_back(self):
        rolled_back = np.arange(100) >= 5
        with pytest.raises(ValueError, match="Received 5 of 5, without 95 that were rolled back"):
            suggest_max_norm({"grad_norm": np.ones(100), "rolled_back": rolled_back})

    def test_twenty_are_enough(self):
        assert suggest_max_norm({"grad_norm": np.ones(20)}).max_norm == 1.0
