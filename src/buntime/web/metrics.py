"""Metrics for Prometheus, with a registry for each app. Labels never contain ids or text from clients."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from buntime.web.logs import KNOWN_METHODS

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
MEDIA = "text/plain; version=1.0.0; charset=utf-8"


class Metrics:
    """`gauges`, `counters`: name → a function that reads the current value. Gauges are shown as `buntime_NAME`,
    counters, which only grow, as `buntime_NAME_total`."""

    def __init__(
        self, gauges: Mapping[str, Callable[[], float]], counters: Mapping[str, Callable[[], float]] | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "buntime_requests", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "buntime_request_seconds", "Time to the answer.", ["route"], buckets=SECONDS, registry=self._registry
        )
        for name, read in gauges.items():
            Gauge(f"buntime_{name}", f"How many: {name}.", registry=self._registry).set_function(read)

        self._registry.register(_Counters(counters or {}))

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in KNOWN_METHODS else "other"
        self._requests.labels(route, known, status).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _Counters(Collector):
    def __init__(self, counters: Mapping[str, Callable[[], float]]) -> None:
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, read in self._counters.items():
            yield CounterMetricFamily(f"buntime_{name}", f"How many since the start: {name}.", read())
