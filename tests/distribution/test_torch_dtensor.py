"""On torch, the norm of a DTensor is that of the whole tensor, never that of a shard."""

import keras
import numpy as np
import pytest

from tests.distribution.processes import results_of
from tests.distribution.trained import too_different

MAX_NORM = 0.5

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="DTensor is torch's")


@pytest.mark.exhaustive
def test_two_processes_with_shards_equal_one_with_all():
    first, second = results_of(
        "tests.distribution.torch_dtensor_program", processes=2, GLOO_SOCKET_IFNAME="lo"
    )
    for key in ("lists", "on a device"):
        for case, of_first in first[key].items():
            check_clip(case, of_first, second[key][case])
    assert first["together"] == second["together"]
    check_training(first["together"], first["alone"] | second["alone"])
    check_training(first["together on a device"], first["alone"] | second["alone"])
    assert first["together"]["skip_above"]["skipped"] == 1
    check_what_is_not_supported(first["not supported"])


def check_clip(case, of_first, of_second):
    """Against NumPy in float64."""
    whole = np.float64(of_first["whole"])
    norm = np.sqrt(np.sum(np.square(whole)))
    # Half precision rounds the clipped gradients, not the norm.
    precision = 1e-3 if "float16" in case else 1e-6
    factor = norm and min(1.0, MAX_NORM / norm) if norm == norm else np.nan
    for found in (of_first, of_second):
        np.testing.assert_allclose(found["norm"], norm, rtol=1e-6, err_msg=case)
        expected = whole * factor
        atol = 6e-5 if "float16" in case else 0
        np.testing.assert_allclose(found["clipped"], expected, precision, atol, err_msg=case)


def check_training(together, alone):
    failures = {case: too_different(run, alone[case], 1e-6) for case, run in together.items()}
    assert {case: found for case, found in failures.items() if found} == {}


def check_what_is_not_supported(found):
    assert found["AdaptiveGradientClipping"] == (
        "TypeError: This clipper compares parts of a gradient with parts of a variable. It cannot "
        "do so for a torch DTensor, whose parts may lie on several processes. Clip by norm or by "
        "value instead."
    )
    # Keras makes moments of whole plain tensors, and trains the parameters from before
    # fully_shard. It can train torch modules in a TorchModuleWrapper that were sharded before.
    assert "got mixed torch.Tensor and DTensor" in found["Adam without a wrapper"]
    assert set(found["parameters that torch has"]) == {"DTensor"}
    assert set(found["variables that Keras trains"]) == {"Parameter"}
