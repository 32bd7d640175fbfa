"""What a recorded run shows, in sentences."""
