"""Strategies and precisions against ways to train: every cell of the table, as a test."""
