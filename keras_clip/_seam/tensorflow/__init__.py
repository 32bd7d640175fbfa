"""The TensorFlow backend, which is imported only on TensorFlow."""
