"""On torch, all processes of DistributedDataParallel clip as one process would."""

import keras
import pytest

from tests.distribution.processes import results_of
from tests.distribution.trained import too_different

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="DistributedDataParallel is torch's"
)


def test_two_processes_with_unequal_data_equal_one():
    first, second = results_of(
        "tests.distribution.torch_ddp_program", processes=2, GLOO_SOCKET_IFNAME="lo"
    )
    assert second["together"] == first["together"]
    assert second["processes"] == 2
    alone = first["alone"] | second["alone"]
    failures = {
        case: too_different(run, alone[case], rtol=1e-6) for case, run in first["together"].items()
    }
    assert {case: found for case, found in failures.items() if found} == {}
    assert alone["skip_above, spikes"]["skipped"] == 3
    assert alone["accumulation, spikes"]["skipped"] == 3
    assert alone["loss, spikes"]["skipped"] == 3
