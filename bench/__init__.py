"""Benchmarks against other programs, as ratios of runs side by side on one machine. Not part of what is installed."""
