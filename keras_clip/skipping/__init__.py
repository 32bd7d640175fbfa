"""Skipped updates: decisions, counters, errors."""
