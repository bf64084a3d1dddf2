"""What the page at `/` shows and can do: state, recent requests, logs, pieces of a text, an operator's actions.

Reads what others own, and acts only through the launcher's control socket. Keeps no text of a request.
"""
