"""Numbers of each update, kept on the device until the host reads them."""
