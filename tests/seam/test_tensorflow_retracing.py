"""Eager loops over models of many sizes give no warning about retracing."""

import logging

import keras
import numpy as np
import pytest

from keras_clip import ClippedOptimizer

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="TensorFlow traces eager calls"
)


def test_eight_models_of_eight_sizes():
    messages = []

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    listener = Listener()
    logging.getLogger("tensorflow").addHandler(listener)
    try:
        for count in range(1, 9):
            variables = [keras.Variable(np.ones(i + 1, "float32")) for i in range(count)]
            optimizer = ClippedOptimizer(keras.optimizers.SGD(0.01, momentum=0.9))
            optimizer.build(variables)
            optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
    finally:
        logging.getLogger("tensorflow").removeHandler(listener)
    assert not [message for message in messages if "retracing" in message]
