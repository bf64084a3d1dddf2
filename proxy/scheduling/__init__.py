"""The queue of one backend: composes batches, keeps one in flight, and handles its result.

It owns fairness, retries, the quarantine, when rejected requests may return (Retry-After), and the bytes held for
clients. It never speaks HTTP and knows no task or model.
"""
