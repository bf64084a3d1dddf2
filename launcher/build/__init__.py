"""`trillama engine build`: llama-server from source, patched, compiled and checked.

Installs into the cache folder alone, and only an engine whose vectors are right.
"""
