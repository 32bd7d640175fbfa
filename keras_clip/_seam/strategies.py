"""Raise under strategies for which a clip would be wrong."""

from keras_clip._seam import backend


def check_strategy(keeps_state: bool) -> None:
    """Raise where workers do not wait for each other and a limit needs them to.

    Args:
        keeps_state: whether clipping reads what earlier updates have written, or the weights
            before and after an update.

    Raises:
        ValueError: it does, and the current `tf.distribute` strategy is asynchronous.
    """
    strategy = backend.asynchronous_strategy()
    if keeps_state and strategy is not None:
        raise ValueError(
            f"ClippedOptimizer was built under {strategy}, whose workers update one by one without "
            "waiting for each other. Two workers could write the state of a clip at once, and it "
            "would be wrong without a sign. Use a clipper without state, such as "
            "ClipByGlobalNorm, nonfinite='propagate', and neither skip_above nor "
            "max_update_ratio; or use MirroredStrategy or MultiWorkerMirroredStrategy, under "
            "which all options work."
        )
