"""What the launcher and the proxy share: settings, the family file, GGUF headers, the load of a backend.

All that the launcher may import of the proxy. Plain data and its validation; never does any I/O but reading such files.
"""
