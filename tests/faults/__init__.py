"""Long runs on bad data, and runs that are killed."""
