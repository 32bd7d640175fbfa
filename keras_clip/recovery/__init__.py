"""Going back to an earlier state of a run that has diverged."""
