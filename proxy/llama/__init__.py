"""The clients of llama-server."""
