"""Builds the multi-vector projector from the original model's checkpoint, read by byte ranges.

Writes one file into the cache folder; the proxy reads and applies it.
"""
