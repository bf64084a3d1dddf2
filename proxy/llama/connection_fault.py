"""Why another server gave no answer, in a few words."""

import os

import aiohttp

from proxy.llama.unix_http import NotListening


def connection_fault(error: Exception) -> str:
    """Without the address, which clients must not learn, nor the names of Python's exceptions."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name of its host is unknown"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno  # none if several addresses failed in different ways
        return f"no connection: {os.strerror(code) if code else 'refused, or no route'}"
    if isinstance(error, NotListening):
        return "nothing listens on its socket"
    return "no answer in time" if isinstance(error, TimeoutError) else "the connection broke"
