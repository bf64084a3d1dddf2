"""The clients of llama-server, the only code that knows its HTTP API. They never queue requests or compose batches."""
