"""The nine laws of clipping, one file each."""
