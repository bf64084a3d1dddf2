"""One served model: its readiness, its verification, the cache of its vectors."""
