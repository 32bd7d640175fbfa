"""Norms of gradients and clips by them, usable without an optimizer."""
