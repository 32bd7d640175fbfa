"""The torch backend, which is imported only on torch."""
