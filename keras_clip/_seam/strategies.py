"""Raise under strategies for which a clip would be wrong."""

from keras_clip._seam import backend


def check_strategy(keeps_state: bool) -> None:
    """Raise if workers do not wait for each other and a limit depends on it.

    Args:
        keeps_state: whether clipping reads state of earlier updates, or the weights before and
            after an update.

    Raises:
        ValueError: it does, and the current `tf.distribute` strategy is asynchronous.
    """
    strategy = backend.asynchronous_strategy()
    if keeps_state and strategy is not None:
        raise ValueError(
            f"ClippedOptimizer was built under {strategy}, whose workers update one by one without "
            "waiting for each other. Two workers could write the state of a clip, or the weights "
            "that a limit compares, at once. Use a clipper without state, such as "
            "ClipByGlobalNorm, nonfinite='propagate', and neither skip_above nor "
            "max_update_ratio; or use MirroredStrategy or MultiWorkerMirroredStrategy, under "
            "which all options work."
        )
