"""What an optimizer writes into the stores of a file, and reads from them, without a file."""

from typing import Any

Stores = tuple[dict[str, Any], dict[str, Any]]


def saved(optimizer: Any) -> Stores:
    """Return what it saves in its own place, and in that of the wrapper's state."""
    stores: Stores = ({}, {})
    optimizer.save_own_variables(stores[0])
    optimizer._saved_state.save_own_variables(stores[1])
    return stores


def load(optimizer: Any, stores: Stores) -> None:
    """Give a built optimizer what `saved` returned."""
    optimizer.load_own_variables(stores[0])
    optimizer._saved_state.load_own_variables(stores[1])
