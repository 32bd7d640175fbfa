"""Ways of distributing training under which a clip would come out wrong are refused."""

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
            "waiting for each other. What clipping keeps between updates would be written by two "
            "at once and be wrong from then on, without a sign of it. Accepted here are clippers "
            "without state, such as ClipByGlobalNorm, without skip_above and max_update_ratio and "
            "with nonfinite='propagate'; or use MirroredStrategy or MultiWorkerMirroredStrategy, "
            "under which everything works."
        )
