"""What every clipper promises."""
