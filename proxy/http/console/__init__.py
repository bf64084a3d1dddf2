"""The console over HTTP: its page and files, and what the page asks for below `/console/`."""
