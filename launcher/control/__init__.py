"""How commands reach a running launcher: its control socket, the client for it, the status document.

Acts only through `fleet`; keeps no state of its own.
"""
