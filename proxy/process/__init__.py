"""What concerns the proxy's process as a whole: its log and its allocator."""
