"""Tests of `keras_clip/recovery`."""
