"""What is kept of each update, on the device until somebody asks."""
