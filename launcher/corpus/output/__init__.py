"""Writes the parts of a corpus: vectors as parquet, .npy, JSON lines or Lance, and the rows that have none."""
