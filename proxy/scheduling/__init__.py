"""The queue of a backend: which texts make the next batch, and what becomes of its result."""
