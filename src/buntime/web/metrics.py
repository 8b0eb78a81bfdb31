"""Metrics for Prometheus, with a registry for each app. Labels never contain ids or text from clients."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from buntime.lifecycle.monitor import Loss
from buntime.session import State
from buntime.web.logs import KNOWN_METHODS
from buntime.web.readings import Reading, Readings
from buntime.webhook import DeliveryState

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
MEDIA = "text/plain; version=0.0.4; charset=utf-8"
DEPTHS = (State.IDLE, State.DEEP_SLEEP)
LOSSES: tuple[Loss, ...] = ("sandbox", "volume")
OUTCOMES = {DeliveryState.DELIVERED: "delivered", DeliveryState.PENDING: "retry", DeliveryState.FAILED: "given-up"}


class Metrics:
    """Counts what happens, and shows it with the readings of the moment. Implements `lifecycle.monitor.Monitor`."""

    def __init__(self, readings: Readings | None = None) -> None:
        self._readings = readings
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "buntime_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "buntime_request_seconds", "Time to the answer.", ["route"], buckets=SECONDS, registry=registry
        )
        self._refusals = Counter(
            "buntime_refusals", "Requests refused, by the error's code.", ["route", "code"], registry=registry
        )
        self._carried = Counter(
            "buntime_requests_carried", "Requests that another host answered.", ["route"], registry=registry
        )
        self._previews = Counter(
            "buntime_preview_refusals",
            "Requests to previews that got a page of buntime.",
            ["reason"],
            registry=registry,
        )
        self._wakes = Histogram(
            "buntime_wake_seconds", "Time that a session took to wake.", ["depth"], buckets=SECONDS, registry=registry
        )
        self._losses = Counter(
            "buntime_lost", "Sandboxes and volumes that were found missing.", ["what"], registry=registry
        )
        self._captures = Histogram(
            "buntime_capture_seconds",
            "Time to capture a session's files, for a snapshot, a fork or an image.",
            buckets=SECONDS,
            registry=registry,
        )
        self._restores = Histogram(
            "buntime_snapshot_restore_seconds",
            "Time to give a session the files of a snapshot.",
            buckets=SECONDS,
            registry=registry,
        )
        self._checkpoints = Histogram(
            "buntime_checkpoint_seconds",
            "Time until a checkpoint of a session was in the archive.",
            buckets=SECONDS,
            registry=registry,
        )
        self._forks = Counter("buntime_forked_sessions", "Sessions that forks made.", registry=registry)
        self._deliveries = Counter(
            "buntime_webhook_deliveries",
            "Attempts to deliver an event to a webhook, by what came of it.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES.values():
            self._deliveries.labels(outcome)
        for depth in DEPTHS:
            self._wakes.labels(depth.value)
        for what in LOSSES:
            self._losses.labels(what)

    def count(self, route: str, method: str, status: int, code: str | None, seconds: float) -> None:
        """`code`: the error's, for a refusal."""
        known = method if method in KNOWN_METHODS else "other"
        self._requests.labels(route, known, status).inc()
        self._seconds.labels(route).observe(seconds)
        if code is not None:
            self._refusals.labels(route, code).inc()

    def carried(self, route: str) -> None:
        """Another host answers the request, and counts it with `count`."""
        self._carried.labels(route).inc()

    def refused_preview(self, reason: str) -> None:
        self._previews.labels(reason).inc()

    def woke(self, depth: State, seconds: float) -> None:
        self._wakes.labels(depth.value).observe(seconds)

    def lost(self, what: Loss) -> None:
        self._losses.labels(what).inc()

    def captured(self, seconds: float) -> None:
        self._captures.observe(seconds)

    def checkpointed(self, seconds: float) -> None:
        self._checkpoints.observe(seconds)

    def forked(self, count: int) -> None:
        self._forks.inc(count)

    def restored(self, seconds: float) -> None:
        self._restores.observe(seconds)

    def attempted(self, left: DeliveryState) -> None:
        """An attempt to deliver an event has ended. `left`: what the delivery is after it."""
        self._deliveries.labels(OUTCOMES[left]).inc()

    async def render(self) -> bytes:
        readings = await self._readings.now() if self._readings else ()
        return generate_latest(_Shown(self._registry, readings))


class _Shown(Collector):
    """What was counted, without the times at which counters were made, then the readings."""

    def __init__(self, counted: CollectorRegistry, readings: Sequence[Reading]) -> None:
        self._counted = counted
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for family in self._counted.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
        yield from map(_family, self._readings)


def _family(reading: Reading) -> Metric:
    kind = CounterMetricFamily if reading.grows else GaugeMetricFamily
    family = kind(f"buntime_{reading.name}", reading.meaning, labels=reading.labels)
    for labels, value in reading.values.items():
        family.add_metric(labels, value)
    return family
