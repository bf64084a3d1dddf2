"""llama-server: where it is found, what it can do, its devices and its command line.

Asks an engine about itself; never starts a server (`supervision` does).
"""
