"""`trillama engine build`: llama-server from source, patched and checked."""
