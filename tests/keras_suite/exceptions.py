"""The Keras tests that cannot pass with a wrapped optimizer, each with the reason.

A listed test has to fail in the listed way. Without the wrapper it has to pass.
"""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Failure:
    """Why a test fails with a wrapped optimizer, and how.

    Attributes:
        reason: the part of the inner object that the test reads.
        error: the type of the error, or several.
        message: regular expression, searched in the message.
    """

    reason: str
    error: type[BaseException] | tuple[type[BaseException], ...]
    message: str


_OWN_CLIP = Failure(
    "gives the optimizer a clip of Keras's own, beside which the wrapper refuses to clip",
    ValueError,
    "clips by itself: (clipnorm|clipvalue|global_clipnorm)=",
)
_UPDATE_RULE = Failure(
    "calls the inner optimizer's update rule by itself, past everything that precedes it",
    NotImplementedError,
    "",
)


def _private(name: str) -> Failure:
    return Failure(
        f"reads or calls the private {name} of the inner optimizer",
        AttributeError,
        f"'ClippedOptimizer' object has no attribute '{name}'",
    )


_TESTS_OF_OWN_CLIP = [
    *(
        f"{test_class}::{name}"
        for test_class in (
            "AdadeltaTest",
            "AdafactorTest",
            "AdagradTest",
            "AdamTest",
            "AdamWTest",
            "AdamaxTest",
            "FtrlTest",
            "LambTest",
            "LionTest",
            "MuonTest",
            "NadamTest",
            "OptimizerTest",
            "RMSpropTest",
            "SGDTest",
            "ScheduleFreeAdamWTest",
        )
        for name in ("test_clip_norm", "test_clip_value")
    ),
    "AdamTest::test_clipnorm_indexed_slices",
    "OptimizerTest::test_clip_args",
    "OptimizerTest::test_global_clip_norm",
]

EXCEPTIONS: dict[str, Failure] = {
    **dict.fromkeys(_TESTS_OF_OWN_CLIP, _OWN_CLIP),
    "MuonTest::test_adamw_single_step": _UPDATE_RULE,
    "MuonTest::test_muon_single_step": _UPDATE_RULE,
    "MuonTest::test_adamw_weight_decay": Failure(
        "calls the private _apply_weight_decay, which the inner optimizer alone uses",
        AssertionError,
        r"ACTUAL: array\(1\.992",
    ),
    "MuonTest::test_should_use_adamw": _private("_should_use_adamw"),
    "NadamTest::test_build_with_empty_var_list": _private("_u_product"),
    "MultiOptimizerAsAWholeTest::test_default_fallback": _private("_var_to_optimizer_idx"),
    "MultiOptimizerAsAWholeTest::test_serialization": _private("_var_to_optimizer_idx"),
    "SGDTest::test_single_step": Failure(
        "counts the variables; beside the inner two are max_norm, grad_norm and skipped_steps",
        AssertionError,
        r"^\d+ != 2$",
    ),
    "OptimizerTest::test_get_method": Failure(
        "asks for the class of the inner optimizer",
        AssertionError,
        "ClippedOptimizer(.*) is not an instance of",
    ),
    "MultiOptimizerTest::test_serialization": Failure(
        "asks for the class names of the inner optimizers",
        AssertionError,
        r"- ClippedOptimizer\n\+ Adam",
    ),
    "MultiOptimizerAsAWholeTest::test_multi_optimizer_blocks_nested_optimizers": Failure(
        "has Keras refuse a member for its class, which the wrapper does not have",
        AssertionError,
        "ValueError not raised",
    ),
    "OptimizerTest::test_optimizer_auto_naming": Failure(
        "asks for the name that Keras makes of the inner optimizer's class",
        AssertionError,
        r"- clipped_optimizer\n\+ adam",
    ),
    "MultiOptimizerTest::test_tensorboard_logging_with_multi_optimizer": Failure(
        "looks logs up by the names of the inner optimizers",
        AssertionError,
        "'learning_rate_SGD' not found in .*learning_rate_clipped_optimizer",
    ),
    "OptimizerSparseTest::test_sparse_gradients_loss_scale_optimizer_sgd": Failure(
        "replaces methods of the object inside LossScaleOptimizer, which is the wrapper",
        (AssertionError, pytest.fail.Exception),
        "False != True|directly on a variable",
    ),
}

MAKE_NOTHING_TO_WRAP: dict[str, str] = {
    "LossScaleOptimizerTest::test_deserialization_backwards_compatibility": (
        "makes its optimizers from a config, inside Keras"
    ),
    "MultiOptimizerAsAWholeTest::test_optimizer_map_matching": (
        "makes members and no MultiOptimizer"
    ),
}
"""Tests that run here without a wrapped optimizer, each with the reason."""
