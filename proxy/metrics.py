"""Every metric's name, in one place."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

BUILD_INFO = Gauge("trillama_build_info", "1; what runs", ("version", "family"), registry=REGISTRY)
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
CACHED = Counter("trillama_cache", "Texts looked up in the cache", ("result",), registry=REGISTRY)
for _result in ("hit", "miss", "damaged"):
    CACHED.labels(_result)  # 0 before the first one, not absent
QUEUE_TEXTS = Gauge("trillama_queue_texts", "Texts waiting in the queue", ("backend",), registry=REGISTRY)
QUEUE_TOKENS = Gauge("trillama_queue_tokens", "Tokens waiting in the queue", ("backend",), registry=REGISTRY)
QUEUE_LIMIT = Gauge("trillama_queue_limit_tokens", "Tokens that may wait in the queue", ("backend",), registry=REGISTRY)
BACKEND_UP = Gauge(
    "trillama_backend_up", "1 if the backend serves, or is started by its next request", ("backend",), registry=REGISTRY
)
BACKEND_INFO = Gauge(
    "trillama_backend_info",
    "1; what makes the backend's vectors",
    ("backend", "space", "quantization", "digest", "engine"),
    registry=REGISTRY,
)
BACKEND_MEMORY = Gauge(
    "trillama_backend_memory_bytes",
    "Memory that the backend is planned to take of a device, and host memory that it has",
    ("backend", "device", "kind"),
    registry=REGISTRY,
)
RESTARTS = Counter(
    "trillama_backend_restarts", "Times the backend's process was restarted", ("backend",), registry=REGISTRY
)
WAITED = Histogram(
    "trillama_wait_seconds",
    "Seconds in the queue until the first text of a request was sent to the engine",
    ("backend", "lane"),
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "trillama_call_seconds",
    "Seconds that the engine took for a batch",
    ("backend",),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
BATCH_TEXTS = Histogram(
    "trillama_call_texts", "Texts per batch", ("backend",), buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=REGISTRY
)
_BATCH_TOKENS = Histogram(
    "trillama_call_tokens",
    "Tokens per batch",
    ("backend",),
    buckets=(16, 64, 256, 512, 1024, 2048, 4096, 8192),
    registry=REGISTRY,
)
DEDUPLICATED = Counter(
    "trillama_deduplicated", "Inputs that shared the vector of an identical text", ("backend",), registry=REGISTRY
)
QUARANTINED = Counter(
    "trillama_quarantined",
    "Texts quarantined because they end the engine or give no finite vector",
    ("backend",),
    registry=REGISTRY,
)
RECOVERIES = Counter("trillama_recoveries", "Times a backend had to be verified again", ("backend",), registry=REGISTRY)
FRONT_PIECES = Counter(
    "trillama_front_pieces", "Pieces of requests sent to a node", ("node", "outcome"), registry=REGISTRY
)
FRONT_RETRIES = Counter(
    "trillama_front_retries", "Pieces that were sent again because a node failed", ("backend",), registry=REGISTRY
)
FRONT_IN_FLIGHT = Gauge(
    "trillama_front_in_flight", "Pieces that a node has not answered yet", ("node",), registry=REGISTRY
)
FRONT_NODES = Gauge(
    "trillama_front_nodes", "Nodes in the list; ready: with all backends", ("state",), registry=REGISTRY
)
BATCH_JOBS = Gauge("trillama_batch_jobs", "Batch jobs that are kept", ("state",), registry=REGISTRY)
BATCH_LINES = Counter("trillama_batch_lines", "Lines of batch jobs that are done", ("result",), registry=REGISTRY)


class QueueMeters:
    """The metrics of one backend's queue, looked up once."""

    def __init__(self, backend: str) -> None:
        self.deduplicated = DEDUPLICATED.labels(backend)
        for counter in (QUARANTINED, RECOVERIES):
            counter.labels(backend)  # 0 before the first one, not absent
        self._interactive, self._bulk = WAITED.labels(backend, "interactive"), WAITED.labels(backend, "bulk")
        self._seconds, self._texts, self._tokens = (
            histogram.labels(backend) for histogram in (BATCH_SECONDS, BATCH_TEXTS, _BATCH_TOKENS)
        )

    def waited(self, seconds: float, *, interactive: bool) -> None:
        (self._interactive if interactive else self._bulk).observe(seconds)

    def batch_done(self, texts: int, tokens: int, seconds: float) -> None:
        self._seconds.observe(seconds)
        self._texts.observe(texts)
        self._tokens.observe(tokens)
