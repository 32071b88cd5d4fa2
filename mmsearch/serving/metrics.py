"""What a server counts of itself, in the format of Prometheus.

One registry a server, so that several may live in one process; its names begin with
``mmsearch_``. Labels are routes as they are written in the program, never what a client sent:
the number of series is bounded.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from mmsearch.retriever.embedding.remembered import RememberingEmbedder
    from mmsearch.retriever.embedding.shared import Batch, SharedEmbedder

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
        self.batch_calls = Histogram(
            "mmsearch_batch_requests",
            "Calls whose items were embedded together.",
            buckets=_COUNTS,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "mmsearch_batch_seconds",
            "What embedding a batch took.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._models = _Models()
        self.registry.register(self._models)
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

    def count_batch(self, batch: "Batch") -> None:
        """Count what was embedded together."""
        self.batch_items.observe(batch.num_items)
        self.batch_calls.observe(batch.num_calls)
        self.batch_seconds.observe(batch.seconds)

    def watch(self, shared: "SharedEmbedder", remembering: "RememberingEmbedder") -> None:
        """Ask these, whenever somebody looks, how much waits and how much is remembered."""
        self._models.known.append((shared, remembering))

    def running(self, number: Callable[[], int]) -> None:
        """Ask this, whenever somebody looks, how many requests are at work or wait."""
        gauge = Gauge(
            "mmsearch_requests_running", "Requests at work or waiting.", registry=self.registry
        )
        gauge.set_function(number)

    def text(self) -> bytes:
        """Return it all as /metrics does."""
        return generate_latest(self.registry)


class _Models(Collector):
    """What the models of a server say of themselves, summed up."""

    def __init__(self) -> None:
        self.known: list[tuple[SharedEmbedder, RememberingEmbedder]] = []

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "mmsearch_embedding_calls_waiting",
            "Calls that wait for the model.",
            sum(shared.num_waiting for shared, _ in self.known),
        )
        yield CounterMetricFamily(
            "mmsearch_cache_hits",
            "Items whose vector was remembered.",
            sum(remembering.num_hits for _, remembering in self.known),
        )
        yield CounterMetricFamily(
            "mmsearch_cache_misses",
            "Items whose vector was not.",
            sum(remembering.num_misses for _, remembering in self.known),
        )
        yield GaugeMetricFamily(
            "mmsearch_cache_vectors",
            "Vectors that are remembered.",
            sum(len(remembering) for _, remembering in self.known),
        )
