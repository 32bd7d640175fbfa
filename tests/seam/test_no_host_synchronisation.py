"""A step with the wrapper waits for the device no more often than the same step without it.

On torch this is counted in two ways. By the calls that wait on an accelerator, on any device,
with the decisions taken as they are on an accelerator. And by CUDA itself: that second half of
the tests is collected only where torch finds a CUDA device, and is not there elsewhere.
Keras's own optimizers do wait there, for the copies of their Python numbers, and more so when
they accumulate gradients or have a schedule.

On JAX the compiled step may neither call nor exchange anything with the host.
"""

import re

import keras
import numpy as np
import pytest

from keras_clip import (
    AdaGC,
    AdaptiveGradientClipping,
    AutoClip,
    ClipByBlockRMS,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ClippedOptimizer,
    ClipperMap,
    ObserveOnly,
    Outliers,
    UpdateClipping,
    WeightClipping,
    ZClip,
)
from tests.support.gradient_stream import as_tensors, gradient_stream, make_variables
from tests.support.host_waits import detectors

backend_is = keras.config.backend()

CLIPPERS = {
    "global norm": lambda: ClipByGlobalNorm(0.5),
    "callable threshold": lambda: ClipByGlobalNorm(lambda step: 0.5),
    "1-norm": lambda: ClipByGlobalNorm(0.5, norm_type=1.0),
    "largest entry": lambda: ClipByGlobalNorm(0.5, norm_type=float("inf")),
    "norm": lambda: ClipByNorm(0.5),
    "value": lambda: ClipByValue(0.5),
    "two values": lambda: ClipByValue((-0.5, 0.25)),
    "block RMS": lambda: ClipByBlockRMS(0.5),
    "adaptive": lambda: AdaptiveGradientClipping(0.5),
    "AutoClip": lambda: AutoClip(50.0, history_size=3),
    "ZClip": lambda: ZClip(warmup_steps=2),
    "ZClip by percentile": lambda: ZClip(
        mode="percentile",
        clip_option="mean",
        max_grad_norm=None,
        warmup_steps=1,
        skip_update_on_spike=True,
    ),
    "AdaGC": lambda: AdaGC(start_clip_steps=2),
    "observer": lambda: ObserveOnly(ClipByGlobalNorm(0.5)),
    "map": lambda: ClipperMap(ClipByGlobalNorm(0.5), {"bias": None, "kernel": ClipByValue(0.1)}),
    "chain": lambda: [ClipByValue(1.0), ClipByGlobalNorm(0.5)],
}
CASES = {
    "skip": lambda: {"nonfinite": "skip"},
    "zero": lambda: {"nonfinite": "zero"},
    "raise": lambda: {"nonfinite": "raise"},
    "limited skips": lambda: {"nonfinite": "skip", "max_consecutive_skips": 1},
    "skip above": lambda: {"skip_above": 2.0},
    "outliers": lambda: {"skip_above": Outliers(window=4, warm_up=2)},
    "max update ratio": lambda: {"max_update_ratio": 0.01},
    "max update ratio of each": lambda: {
        "max_update_ratio": UpdateClipping(0.01, per_variable=True),
        "nonfinite": "skip",
    },
    "max weight": lambda: {"max_weight": 0.5},
    "max weight by fan-in": lambda: {
        # The bias has no layer that would tell its inputs.
        "max_weight": {"bias": 1.0, "default": WeightClipping(1.0, scale_by_fan_in=True)}
    },
    **{name: lambda make=make: {"clipper": make()} for name, make in CLIPPERS.items()},
    **{
        f"{name}, skip above": lambda make=CLIPPERS[name]: {"clipper": make(), "skip_above": 2.0}
        for name in ("AutoClip", "ZClip")
    },
}


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def stream_with_nan():
    stream = gradient_stream(5)
    stream[3][0][:] = np.nan
    return stream


def waits(detector, optimizer):
    variables = make_variables()
    first, *others = [as_tensors(gradients) for gradients in stream_with_nan()]
    optimizer.apply(first, variables)  # makes variables
    with detector() as found:
        for gradients in others:
            optimizer.apply(gradients, variables)
    return found


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    from keras_clip._seam.torch import host

    monkeypatch.setattr(host, "can_read", lambda tensor: False)


@pytest.mark.skipif(backend_is != "torch", reason="others compile whole steps")
@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
@pytest.mark.usefixtures("as_on_an_accelerator")
class TestTorch:
    @pytest.mark.parametrize("detector", detectors() if backend_is == "torch" else [])
    @pytest.mark.parametrize("case", CASES)
    def test_no_more_waits_than_without_the_wrapper(self, case, detector):
        wrapped = ClippedOptimizer(sgd(), **CASES[case]())
        assert waits(detector, wrapped) == waits(detector, sgd())

    @pytest.mark.parametrize("detector", detectors() if backend_is == "torch" else [])
    def test_a_wait_is_seen(self, detector):
        class Reads(ClipByGlobalNorm):
            def clip(self, update):
                float(update.global_norm)
                return super().clip(update)

        waiting = ClippedOptimizer(sgd(), clipper=Reads())
        assert len(waits(detector, waiting)) == len(waits(detector, sgd())) + 4


def compiled_text(optimizer):
    import jax

    variables = make_variables()
    optimizer.build(variables)
    arguments = [[v.value for v in variables] for variables in (optimizer.variables, variables)]
    gradients = as_tensors(gradient_stream(1)[0])
    step = jax.jit(optimizer.stateless_apply)
    return step.lower(arguments[0], gradients, arguments[1]).compile().as_text()


EXCHANGE = re.compile(r"callback|\b(infeed|outfeed|send|recv)\(")


@pytest.mark.skipif(backend_is != "jax", reason="the compiled step of JAX")
@pytest.mark.filterwarnings("ignore:This step is compiled:UserWarning")
class TestJax:
    @pytest.mark.parametrize("case", CASES)
    def test_the_compiled_step_stays_on_the_device(self, case):
        assert not EXCHANGE.search(compiled_text(ClippedOptimizer(sgd(), **CASES[case]())))

    def test_a_call_of_the_host_is_seen(self):
        import jax

        class Prints(ClipByGlobalNorm):
            def clip(self, update):
                jax.debug.print("{}", update.global_norm)
                return super().clip(update)

        assert EXCHANGE.search(compiled_text(ClippedOptimizer(sgd(), clipper=Prints())))
