"""Every metric's name, in one place."""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()

REQUESTS = Counter("trillama_requests", "Requests answered", ("route", "status"), registry=REGISTRY)
SECONDS = Histogram(
    "trillama_request_seconds",
    "Seconds from a request's first byte to its answer",
    ("route",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
INPUTS = Counter("trillama_inputs", "Inputs embedded", ("task",), registry=REGISTRY)
TOKENS = Counter("trillama_tokens", "Tokens embedded, prefixes included", ("task",), registry=REGISTRY)
