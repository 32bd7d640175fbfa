"""On JAX the norm is over the logical array, whatever devices hold it."""

import keras
import numpy as np
import pytest

from tests.distribution.processes import results_of
from tests.distribution.trained import too_different

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "jax", reason="keras.distribution is JAX's"
)


def run(what):
    """The program has 8 devices; the process of the tests has one."""
    flags = "--xla_force_host_platform_device_count=8"
    return results_of("tests.distribution.jax_program", what, XLA_FLAGS=flags)[0]


def assert_all_equal_one_device(cases):
    failures = {
        (case, scope): too_different(run, scopes["one device"], rtol=1e-6)
        for case, scopes in cases.items()
        for scope, run in scopes.items()
    }
    assert {key: found for key, found in failures.items() if found} == {}


@pytest.mark.exhaustive
def test_eight_devices_equal_one():
    cases = run("options")
    assert_all_equal_one_device(cases)
    assert 0 < cases["skip_above"]["one device"]["skipped"] < 25
    accumulated = cases["accumulation, max_weight"]["model parallel"]
    assert accumulated["updates"] == 25
    assert max(map(abs, accumulated["weights"])) == np.float32(0.4)


@pytest.mark.endurance
def test_every_clipper_on_sharded_variables_equals_one_device():
    assert_all_equal_one_device(run("clippers"))


@pytest.mark.endurance
def test_a_run_that_was_saved_continues_as_if_never_stopped():
    found = run("resumes")
    resumed, whole = found["resumed"], found["never stopped"]
    assert resumed["model parallel"] == whole["model parallel"]
    assert too_different(resumed["one device"], whole["one device"], rtol=1e-6) == {}


@pytest.mark.exhaustive
def test_no_gradient_is_exchanged_twice_and_a_batch_that_cannot_be_split_is_kerass_error():
    found = run("structure")
    check_collectives(found["collectives"])
    for bare, wrapped in found["uneven"].values():
        assert wrapped == bare
        assert "should" in bare


def check_collectives(found):
    replicated, sharded = found["data parallel"], found["model parallel"]
    for name in ("wrapped", "units"):
        assert replicated[name] == replicated["bare"]
    assert without_numbers(sharded["wrapped"]) == without_numbers(sharded["bare"])
    # For each of the three sharded variables one sum of squares, in the branch for magnitudes whose
    # squares leave the range two more, and in the one for a norm that leaves it one more.
    assert sharded["wrapped"][NUMBER] == sharded["bare"][NUMBER] + 12
    # One number for each unit of the kernel whose inputs are sharded.
    assert gradients_in(sharded["units"]) == gradients_in(sharded["bare"])


NUMBER = "all-reduce []"


def without_numbers(collectives):
    return {name: count for name, count in collectives.items() if name != NUMBER}


def gradients_in(collectives):
    """Return the collectives of more entries than the single unit of the output layer."""
    small = (NUMBER, "all-reduce [1]")
    return {name: count for name, count in collectives.items() if name not in small}
