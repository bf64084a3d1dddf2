"""The proxy's process as a whole: its log, its allocator, its open files. Knows nothing of requests."""
