"""What is said where a clipper that looks at units meets a sharded gradient."""

NO_SHARDED = (
    "This clipper compares parts of a gradient with parts of a variable, for which {kind} has no "
    "support here: the parts may lie on several processes. Clip by norm or by value instead."
)
