"""Keras's own optimizer tests, run with every optimizer wrapped in `ClippedOptimizer`.

Some Keras wheels hold Keras's tests. Each test file is loaded here as a private copy that gets
a stand-in wherever it imports an optimizer class: called like the class, it returns the
optimizer wrapped at a threshold never reached. In Keras and keras_clip nothing is replaced; calls
of two methods are counted while a test runs.
"""
