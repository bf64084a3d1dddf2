"""The `trillama` command: finds models and an engine, starts and supervises three llama-servers and the proxy."""

__version__ = "0.1.0"
