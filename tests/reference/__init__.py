"""Slow, plain float64 versions of each rule, written from the formula alone."""
