"""The queue of one backend: composes batches, keeps one in flight, and handles its result.

It owns fairness, retries, the quarantine and the memory budget. It never speaks HTTP and knows no task or model.
"""
