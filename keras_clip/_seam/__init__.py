"""The only place for private Keras names and for frameworks.

No other module of keras_clip names `tensorflow`, `jax`, `torch` or a private Keras name.
`backend` is the `Backend` of the framework that Keras runs on. The other two are not imported.
"""

import keras

from keras_clip._seam.backend import Backend


def _make_backend() -> Backend:
    name = keras.config.backend()
    if name == "tensorflow":
        from keras_clip._seam.tensorflow.backend import TensorFlowBackend

        return TensorFlowBackend()
    if name == "jax":
        from keras_clip._seam.jax.backend import JaxBackend

        return JaxBackend()
    if name == "torch":
        from keras_clip._seam.torch.backend import TorchBackend

        return TorchBackend()
    raise ImportError(
        f"keras_clip cannot clip on the Keras backend {name!r}, which does not train. "
        "It works on 'tensorflow', 'jax' and 'torch'. Set the environment variable "
        "KERAS_BACKEND to one of them before Python starts."
    )


# Replaces the attribute that the import of the module `backend` has set.
backend: Backend = _make_backend()
