"""What is said where a clipper that looks at single entries meets a sparse gradient."""

NO_SPARSE = (
    "This clipper looks at single entries or rows, for which {kind} has no support here: Keras "
    "itself makes none on this backend. Clip by norm instead, or make the gradient dense before "
    "you pass it to the optimizer."
)
