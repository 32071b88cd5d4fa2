"""What a server counts of itself, in the format of Prometheus.

One registry a server, so that several may live in one process; its names begin with
``mmsearch_``. Labels are routes as they are written in the program, never what a client sent:
the number of series is bounded.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "mmsearch_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "mmsearch_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_items = Histogram(
            "mmsearch_batch_items",
            "Items that were embedded together.",
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.abandoned = Counter(
            "mmsearch_abandoned",
            "Requests whose client left before the answer.",
            registry=self.registry,
        )
        self.refused = Counter(
            "mmsearch_refused_busy",
            "Requests that were answered 429.",
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return it all as /metrics does."""
        return generate_latest(self.registry)
