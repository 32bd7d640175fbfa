"""State that Keras saves separately, below the optimizer."""

from keras.src.saving.keras_saveable import KerasSaveable


class OwnState(KerasSaveable):  # type: ignore[misc]
    """A part of an optimizer that is saved beside the optimizer's own variables.

    Subclasses have `save_own_variables` and `load_own_variables`. The optimizer's own place in a
    file then holds only the wrapped optimizer's variables, so either can load the other's file.
    """

    def _obj_type(self) -> str:
        # Keras calls it to find the attributes that it must not track.
        return "Optimizer"
