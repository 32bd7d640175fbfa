"""The precisions of a computation, and their accepted differences from float64."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Precision:
    """A dtype policy, with its loss scale and its tolerance.

    Args:
        policy: name of the Keras dtype policy.
        loss_scale_factor: of the wrapped optimizer.
        float8: whether the Dense layers are quantized.
        rtol: accepted difference from float64, of norms and weights.
        is_own_reference: whether it is too coarse for that. Weights are then compared with those
            of Keras's own clip in the same precision, on one device.
    """

    policy: str = "float32"
    loss_scale_factor: float | None = None
    float8: bool = False
    rtol: float = 1e-6
    is_own_reference: bool = False

    @property
    def step_rtol(self) -> float:
        """The tolerance for the length of a step: policies do not round its weights."""
        return 1e-12 if self.policy == "float64" else 1e-4

    def use(self) -> None:
        """Make later layers compute in it."""
        keras.config.set_floatx("float64" if self.policy == "float64" else "float32")
        keras.config.set_dtype_policy(self.policy)


FLOAT32 = Precision()

# float16 keeps 11 bits, bfloat16 8, the formats of float8 4 and 3.
PRECISIONS = {
    "mixed_float16": Precision("mixed_float16", rtol=2e-3),
    "mixed_bfloat16": Precision("mixed_bfloat16", rtol=2e-2),
    # Except on TensorFlow, Keras multiplies matrices in float32.
    "float64": Precision("float64", rtol=1e-12 if keras.config.backend() == "tensorflow" else 1e-6),
    "loss_scale_factor": Precision(loss_scale_factor=1024.0),
    "float8": Precision(float8=True, rtol=0.5, is_own_reference=True),
}
