"""What is printed on a terminal and what a terminal tells us: consoles, progress, shared options, signals.

Decides nothing about what is served.
"""
