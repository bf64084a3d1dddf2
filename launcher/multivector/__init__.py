"""The projector of multi-vectors, read from the original's checkpoint by byte ranges."""
