"""A clipper run by itself, without an optimizer."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_clip import Clipped, Update
from tests.support.gradient_stream import as_tensors


def gradients_of(result: Any) -> Sequence[Any]:
    """Return the gradients in a result of `clip`: a list, or a `Clipped`."""
    return result.gradients if isinstance(result, Clipped) else result


def clip_alone(clipper: Any, gradients: Sequence[Any], weights: Any = None) -> list[np.ndarray]:
    """Clip `gradients` by `clipper` at step 0, in a model with `weights`, or zeros."""
    tensors = as_tensors(gradients)
    if weights is None:
        weights = [np.zeros(gradient.shape) for gradient in gradients]
    variables = [
        keras.Variable(weight, dtype=keras.backend.standardize_dtype(tensor.dtype))
        for weight, tensor in zip(weights, tensors, strict=True)
    ]
    clipper.build_for(variables)
    update = Update(tensors, variables, keras.ops.convert_to_tensor(0))
    clipped = gradients_of(clipper.clip(update))
    assert [t.dtype for t in clipped] == [t.dtype for t in tensors]
    return [np.array(keras.ops.convert_to_numpy(t)) for t in clipped]
