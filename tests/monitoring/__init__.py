"""Tests of keras_clip.monitoring."""
