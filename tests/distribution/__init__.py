"""One threshold, whatever the hardware: many devices, processes and shards equal one device."""
