"""llama-server: where it is found, what it can do, its devices, its command line."""
