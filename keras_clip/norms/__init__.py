"""Norms of gradients, and the clip by them: usable without an optimizer."""
