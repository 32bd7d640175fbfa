"""The promises of every clipper."""
