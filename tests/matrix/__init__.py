"""Strategies and precisions against ways to train: every cell of the README's matrix, as a test."""
