"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)


class Metrics:
    """The counters of one service, in a registry of their own.

    Parameters
    ----------
    queue : callable
        Returns the number of images that wait for a batch.
    in_work : callable
        Returns the number of images that were accepted and are not answered yet.
    outdated : callable
        Returns for how many seconds the folder has held another index than that in service.
    """

    def __init__(
        self,
        queue: Callable[[], float],
        in_work: Callable[[], float],
        outdated: Callable[[], float],
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "spade_faiss_requests",
            "Requests that were answered.",
            ("path", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "spade_faiss_request_seconds",
            "From a request's first line to its answer's last byte.",
            ("path",),
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.batches = Histogram(
            "spade_faiss_batch_images",
            "Images that were queried together.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self.verdicts = Counter(
            "spade_faiss_verdicts", "Images by verdict.", ("verdict",), registry=registry
        )
        self.reloads = Counter(
            "spade_faiss_index_reloads",
            "Attempts to serve an index that was replaced.",
            ("outcome",),
            registry=registry,
        )
        Gauge(
            "spade_faiss_queue_images", "Images that wait for a batch.", registry=registry
        ).set_function(queue)
        Gauge(
            "spade_faiss_images_in_work", "Images accepted and not answered yet.", registry=registry
        ).set_function(in_work)
        Gauge(
            "spade_faiss_index_outdated_seconds",
            "For how long the folder has held another index than that in service; 0 if not.",
            registry=registry,
        ).set_function(outdated)
