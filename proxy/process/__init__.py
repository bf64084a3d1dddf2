"""The proxy's process as a whole: its log and its allocator. Knows nothing of requests."""
