"""The same run on one device and on many."""
