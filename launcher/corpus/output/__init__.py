"""Writes the parts of a corpus: vectors as parquet, .npy or JSON lines, and the rows that have none."""
