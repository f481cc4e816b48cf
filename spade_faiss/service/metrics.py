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
from prometheus_client.metrics import MetricWrapperBase


class Metrics:
    """The counters of one service, in a registry of their own.

    Those of a service of several indices have a first label `index`.

    Parameters
    ----------
    queue : callable
        Returns the number of images that wait for a batch.
    in_work : callable
        Returns the number of images that were accepted and are not answered yet.
    several : bool
        Whether the service has several indices.
    """

    def __init__(
        self, queue: Callable[[], float], in_work: Callable[[], float], *, several: bool = False
    ) -> None:
        self.registry = registry = CollectorRegistry()
        self.several = several
        own = ("index",) if several else ()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "spade_faiss_requests",
            "Requests that were answered.",
            (*own, "path", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "spade_faiss_request_seconds",
            "From a request's first line to its answer's last byte.",
            (*own, "path"),
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.batches = Histogram(
            "spade_faiss_batch_images",
            "Images that were queried together.",
            own,
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self.verdicts = Counter(
            "spade_faiss_verdicts", "Images by verdict.", (*own, "verdict"), registry=registry
        )
        self.shares = Histogram(
            "spade_faiss_score_share",
            "An image's score as a share of its threshold, over which it is NG.",
            own,
            registry=registry,
            buckets=(0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4),
        )
        self.drift = Gauge(
            "spade_faiss_drift_apart",
            "How far the last 100 images are from those of the calibration: 0.5 is not at all, 1 "
            "entirely; NaN before.",
            own,
            registry=registry,
        )
        self.drift_warned = Gauge(
            "spade_faiss_drift_warned",
            "Whether that is worth a warning: 1 or 0; NaN before.",
            own,
            registry=registry,
        )
        self.reloads = Counter(
            "spade_faiss_index_reloads",
            "Attempts to serve an index that was replaced.",
            (*own, "outcome"),
            registry=registry,
        )
        self.outdated = Gauge(
            "spade_faiss_index_outdated_seconds",
            "For how long the folder has held another index than that in service; 0 if not.",
            own,
            registry=registry,
        )
        self._of_one: list[MetricWrapperBase] = [
            *(self._requests, self._seconds, self.batches, self.verdicts, self.reloads),
            *(self.shares, self.drift, self.drift_warned, self.outdated),
        ]
        if several:
            self.openings = Counter(
                "spade_faiss_index_openings",
                "Attempts to open an index that was asked for.",
                ("index", "outcome"),
                registry=registry,
            )
            self.drops = Counter(
                "spade_faiss_index_drops",
                "Times that an index was dropped from memory to make room.",
                ("index",),
                registry=registry,
            )
            self.loaded = Gauge(
                "spade_faiss_index_loaded",
                "Whether an index that was asked for is in memory: 1 or 0.",
                ("index",),
                registry=registry,
            )
            self._of_one += [self.openings, self.drops, self.loaded]
        Gauge(
            "spade_faiss_queue_images", "Images that wait for a batch.", registry=registry
        ).set_function(queue)
        Gauge(
            "spade_faiss_images_in_work", "Images accepted and not answered yet.", registry=registry
        ).set_function(in_work)

    def count_request(self, index: str | None, path: str, status: int, seconds: float) -> None:
        """Count a request, and how long it took; `index` is None if it was for none."""
        own = (index or "",) if self.several else ()
        self._requests.labels(*own, path, str(status)).inc()
        self._seconds.labels(*own, path).observe(seconds)

    def forget(self, index: str) -> None:
        """Tell no more of an index that is gone."""
        for metric in self._of_one:
            metric.remove_by_labels({"index": index})


class IndexMetrics:
    """The counters of one index of a service.

    Parameters
    ----------
    metrics : Metrics
    index : str or None
        Its name; None if it is served alone.
    """

    def __init__(self, metrics: Metrics, index: str | None) -> None:
        self._metrics = metrics
        self._own = () if index is None else (index,)

    def count_verdict(self, verdict: str | None) -> None:
        """Count an image; None is without a verdict."""
        self._metrics.verdicts.labels(*self._own, verdict or "none").inc()

    def count_share(self, share: float) -> None:
        """Count an image's score, as a share of its threshold."""
        shares = self._metrics.shares
        (shares.labels(*self._own) if self._own else shares).observe(share)

    def tell_drift(self, apart: float, warned: float) -> None:
        """Tell what `Drifting` finds."""
        for gauge, value in ((self._metrics.drift, apart), (self._metrics.drift_warned, warned)):
            (gauge.labels(*self._own) if self._own else gauge).set(value)

    def count_batch(self, images: int) -> None:
        """Count images that are queried together."""
        batches = self._metrics.batches
        (batches.labels(*self._own) if self._own else batches).observe(images)

    def count_reload(self, outcome: str) -> None:
        """Count an attempt to serve an index that was replaced."""
        self._metrics.reloads.labels(*self._own, outcome).inc()

    def watch(self, outdated: Callable[[], float]) -> None:
        """Ask a function for how many seconds the folder has held another index."""
        gauge = self._metrics.outdated
        (gauge.labels(*self._own) if self._own else gauge).set_function(outdated)

    def leave(self) -> None:
        """Ask it no more: the index is dropped from memory."""
        if self._own:
            self._metrics.outdated.remove(*self._own)
