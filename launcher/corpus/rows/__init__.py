"""Reads the rows of a corpus from its files, part after part, without ever having a file in memory."""
