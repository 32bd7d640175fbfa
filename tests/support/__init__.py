"""What several tests need: small models, streams of gradients, lists of optimizers."""
