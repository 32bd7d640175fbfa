"""The stores of a file in memory: an optimizer writes into them and reads from them."""

from typing import Any

Stores = tuple[dict[str, Any], dict[str, Any]]


def saved(optimizer: Any) -> Stores:
    """Return the contents of its own store, and of the store of the wrapper's state."""
    stores: Stores = ({}, {})
    optimizer.save_own_variables(stores[0])
    optimizer._saved_state.save_own_variables(stores[1])
    return stores


def load(optimizer: Any, stores: Stores) -> None:
    """Load the result of `saved` into a built optimizer."""
    optimizer.load_own_variables(stores[0])
    optimizer._saved_state.load_own_variables(stores[1])
