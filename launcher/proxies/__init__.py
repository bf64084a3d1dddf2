"""The proxy's processes: their settings, their start, the handover from one to the next, pausing of backends.

Knows of the proxy only what `proxy.contract` says, and never answers a client's request itself.
"""
