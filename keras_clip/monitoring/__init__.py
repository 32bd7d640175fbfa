"""Records of a run, and their use: callbacks, files, pictures, advice."""
