"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dfd_edge.serve.judging.store import Judgement, State

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)
_REQUEST_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)


class Metrics:
    """The figures of one service.

    Attributes:
        deaths: Processes that died while they judged.
        received: Bytes of uploads.
        requests: Requests, by method, route and status.
        request_seconds: Time to the end of an answer, by route.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._ended = Counter(
            "dfd_judgements",
            "Judgements that ended, by state and label.",
            ("state", "label"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "dfd_judging_seconds",
            "Time that judgements took, from their begin.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._waited = Histogram(
            "dfd_waiting_seconds",
            "Time that judgements waited before they began.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._media = Counter(
            "dfd_media_seconds", "Seconds of film that were judged.", registry=self._registry
        )
        self.deaths = Counter(
            "dfd_worker_deaths",
            "Processes that died while they judged.",
            registry=self._registry,
        )
        self.received = Counter(
            "dfd_received_bytes", "Bytes of files that were received.", registry=self._registry
        )
        self.requests = Counter(
            "dfd_requests",
            "Requests, by method, route and status.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.request_seconds = Histogram(
            "dfd_request_seconds",
            "Time to the end of an answer, by route; streams of events last as long as they do.",
            ("route",),
            buckets=_REQUEST_SECONDS,
            registry=self._registry,
        )

    def judged(self, judgement: Judgement, took_s: float) -> None:
        """Counts a judgement that ended.

        Args:
            judgement: It.
            took_s: Seconds since it was begun.
        """
        self._ended.labels(judgement.state.value, judgement.label or "").inc()
        if judgement.state is not State.DONE or judgement.verdict is None:
            return
        self._seconds.observe(took_s)
        self._media.inc(judgement.verdict["duration_s"])
        if judgement.started_at is not None:
            begun = datetime.fromisoformat(judgement.started_at)
            waited = begun - datetime.fromisoformat(judgement.submitted_at)
            self._waited.observe(max(0.0, waited.total_seconds()))

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a figure that is looked up whenever all are asked for."""
        self._registry.register(_Looked(name, text, value))

    def text(self) -> bytes:
        """Returns all figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Looked(Collector):
    def __init__(self, name: str, text: str, value: Callable[[], float]) -> None:
        self._name, self._text, self._value = name, text, value

    def describe(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._name, self._text)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(self._name, self._text, value=self._value())
