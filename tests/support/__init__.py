"""Shared parts of tests: small models, streams of gradients, lists of optimizers."""
