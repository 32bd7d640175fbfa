"""Tests of keras_clip; each runs on the backend that KERAS_BACKEND names."""
