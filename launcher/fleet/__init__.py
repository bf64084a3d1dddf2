"""The running set of llama-servers and proxy: prepared, kept in step, changed by a reload, evicted for memory.

Owns which backends are paused and why. Never starts a process itself: `supervision` and `proxies` do.
"""
