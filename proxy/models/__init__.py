"""A backend as it is served: verification, readiness, recovery, admission, provenance, and the cache of its vectors.

It owns when requests are let in and when they wait. It never composes batches, and knows no task or dialect.
"""
