"""Tests of `keras_clip.diagnose`."""
