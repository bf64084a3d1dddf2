"""What the launcher and the proxy share: settings, the family file, GGUF headers, the load of a backend."""
