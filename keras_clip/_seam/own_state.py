"""State that Keras saves in a place of its own, under the optimizer's."""

from keras.src.saving.keras_saveable import KerasSaveable


class OwnState(KerasSaveable):  # type: ignore[misc]
    """A part of an optimizer that is saved beside the optimizer's own variables.

    Subclasses have `save_own_variables` and `load_own_variables`. As the optimizer's own place
    then holds the wrapped optimizer's variables alone, either can load the other's file.
    """

    def _obj_type(self) -> str:
        # Keras asks, to know which attributes to pass over.
        return "Optimizer"
