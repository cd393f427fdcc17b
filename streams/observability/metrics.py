"""The catalogue of metrics: every metric that a process exports, as data; dashboards and alerts depend on the names.

Labels are closed sets, never ids (a value outside its set is counted as ``other``). A metric is updated by one method
of `Metrics` and nowhere else. Every process, and every test, has its own registry.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.delivery import Doubt
from streams.core.retry import Reason

OTHER: Final = "other"

# ------------------------------------------------------------------------------------------------------ catalogue

STEP_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CALL_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRESHNESS_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
UNIT_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10000)

VERDICTS: Final = ("applied", "ignored", "parked", "dead", "duplicate")
OUTCOMES: Final = ("ok", "gone", "throttled", "unavailable", "unauthorized", "missing", "rejected")
WEBHOOK_RESULTS: Final = (
    "accepted",
    "ignored",
    "unsigned",
    "malformed",
    "too_large",
    "too_slow",
    "refused",
    "unknown",
    "not_durable",
    "held",
    "error",
)
MODES: Final = ("snapshot", "delta")
DELIVERY_OUTCOMES: Final = ("acknowledged", "throttled", "unavailable", "unauthorized", "missing", "rejected")
STAGES: Final = ("acknowledged",)

CLOSED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("rentstream_records_total", "verdict"): VERDICTS,
    ("rentstream_calls_total", "outcome"): OUTCOMES,
    ("rentstream_webhooks_total", "result"): WEBHOOK_RESULTS,
    ("rentstream_dead_letters_total", "reason"): tuple(reason.value for reason in Reason),
    ("rentstream_batches_total", "mode"): MODES,
    ("rentstream_batches_total", "outcome"): DELIVERY_OUTCOMES,
    ("rentstream_freshness_seconds", "stage"): STAGES,
    ("rentstream_doubts", "kind"): tuple(doubt.value for doubt in Doubt if doubt is not Doubt.UNKNOWN),
}
"""Labels with a fixed set of values. The values of all others come from the topology and the connector registry."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Declaration of one metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE: Final = (
    Spec("rentstream_records_total", "counter", "Records processed, by verdict", ("flow", "verdict")),
    Spec("rentstream_record_seconds", "histogram", "Processing time of a record", ("flow",), STEP_BUCKETS),
    Spec("rentstream_scan_seconds", "histogram", "Computing time of a scan of a partition", ("flow",), STEP_BUCKETS),
    Spec("rentstream_calls_total", "counter", "Calls of external systems, by outcome", ("port", "outcome")),
    Spec("rentstream_call_seconds", "histogram", "Duration of a call of an external system", ("port",), CALL_BUCKETS),
    Spec("rentstream_webhooks_total", "counter", "Webhooks received, by result", ("system", "result")),
    Spec("rentstream_consumer_lag", "gauge", "Records not yet committed by the consumer group", ("topic", "partition")),
    Spec(
        "rentstream_consumer_lag_seconds",
        "gauge",
        "Age of the oldest record not yet committed, 0 if there is none",
        ("topic", "partition"),
    ),
    Spec("rentstream_parked", "gauge", "Records waiting on a rung of the retry ladder", ("rung",)),
    Spec(
        "rentstream_retry_overdue_seconds",
        "gauge",
        "Time since the next record of a rung was due, 0 if none is overdue",
        ("rung",),
    ),
    Spec(
        "rentstream_dead_letters_total",
        "counter",
        "Dead letters, by original topic and reason",
        ("origin", "reason"),
    ),
    Spec(
        "rentstream_batches_total",
        "counter",
        "Batches sent to a receiver, by outcome",
        ("sink", "mode", "outcome"),
    ),
    Spec("rentstream_batch_units", "histogram", "Units per batch sent to a receiver", ("sink",), UNIT_BUCKETS),
    Spec(
        "rentstream_freshness_seconds",
        "histogram",
        "Time from the detection of a change to a stage of its delivery (acknowledged: by the receiver)",
        ("stage",),
        FRESHNESS_BUCKETS,
    ),
    Spec(
        "rentstream_oldest_undelivered_seconds",
        "gauge",
        "Age of the oldest change that a receiver has not acknowledged, parked ones included",
        ("sink",),
    ),
    Spec(
        "rentstream_open_dead_letters",
        "gauge",
        "Deliveries with a dead letter that nothing has made void: not acknowledged and still owed",
        ("sink",),
    ),
    Spec("rentstream_receiver_hold", "gauge", "1 while a receiver is on hold, else 0", ("sink",)),
    Spec("rentstream_doubts", "gauge", "Units, or connections, whose data in the PMS is doubtful, by kind", ("kind",)),
    Spec(
        "rentstream_held_removals",
        "gauge",
        "Entities that no longer exist in the PMS, and whose removal waits for a person because they are many",
        ("system",),
    ),
    Spec(
        "rentstream_unswept_connections",
        "gauge",
        "Enabled connections whose first sweep is not complete: nothing of them is delivered",
        ("system",),
    ),
    Spec("rentstream_view_age_seconds", "gauge", "Age of the newest moment that the query view is complete for"),
    Spec("rentstream_lost_records_total", "counter", "Records that Kafka may have lost unread", ("topic",)),
    Spec(
        "rentstream_standby_lag",
        "gauge",
        "Records of changelogs that the rows which this worker keeps for other workers do not contain yet",
    ),
    Spec(
        "rentstream_stopped_partitions",
        "gauge",
        "Partitions of this worker that are stopped: a newer release wrote to them, or no record of the flow succeeds",
        ("flow",),
    ),
    Spec(
        "rentstream_webhook_misses_total", "counter", "Changes found by a sweep that no webhook announced", ("system",)
    ),
    Spec("rentstream_api_budget_used_ratio", "gauge", "Used share of the API budget of a system, 0 to 1", ("system",)),
)

LAG_METRICS: Final = (
    "rentstream_consumer_lag",
    "rentstream_consumer_lag_seconds",
    "rentstream_parked",
    "rentstream_retry_overdue_seconds",
)
"""The gauges that the web role reads from the cluster."""

Instrument = Counter | Gauge | Histogram


class Metrics:
    """The metrics of one process; a test reads them with `value`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._specs = {spec.name: spec for spec in CATALOGUE}
        self._instruments: dict[str, Instrument] = {spec.name: self._create(spec) for spec in CATALOGUE}
        self._children: dict[tuple[str, ...], Instrument] = {}

    def _create(self, spec: Spec) -> Instrument:
        if spec.kind == "counter":
            return Counter(spec.name, spec.help, spec.labels, registry=self.registry)
        if spec.kind == "gauge":
            return Gauge(spec.name, spec.help, spec.labels, registry=self.registry)
        return Histogram(spec.name, spec.help, spec.labels, buckets=spec.buckets, registry=self.registry)

    def _child(self, name: str, *labels: str) -> Instrument:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            spec = self._specs[name]
            values = (
                value if value in CLOSED.get((name, label), (value,)) else OTHER
                for label, value in zip(spec.labels, labels, strict=True)
            )
            instrument = self._instruments[name]
            child = instrument.labels(*values) if labels else instrument
            if len(self._children) < 10_000:
                self._children[key] = child
        return child

    def _increment(self, name: str, *labels: str, by: float = 1) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Counter)
        child.inc(by)

    def _set(self, name: str, *labels: str, value: float) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Gauge)
        child.set(value)

    def _observe(self, name: str, *labels: str, value: float) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Histogram)
        child.observe(value)

    # --------------------------------------------------------------------------------------------------------- updates

    def record(self, flow: str, verdict: str, seconds: float, records: int = 1) -> None:
        """Count records that ended with the same verdict, and observe the seconds that they took."""
        self._increment("rentstream_records_total", flow, verdict, by=records)
        self._observe("rentstream_record_seconds", flow, value=seconds)

    def scanned(self, flow: str, seconds: float) -> None:
        """Observe the seconds of computing of a scan."""
        self._observe("rentstream_scan_seconds", flow, value=seconds)

    def dead(self, origin: str, reason: str) -> None:
        """Count a dead letter; ``origin`` is the topic of the record, without the prefix."""
        self._increment("rentstream_dead_letters_total", origin, reason)

    def call(self, port: str, outcome: str, seconds: float) -> None:
        """Count a call of an external system, and observe its duration."""
        self._increment("rentstream_calls_total", port, outcome)
        self._observe("rentstream_call_seconds", port, value=seconds)

    def webhook(self, system: str, result: str) -> None:
        """Count a webhook by its result."""
        self._increment("rentstream_webhooks_total", system, result)

    def batch(self, sink: str, mode: str, outcome: str, units: int) -> None:
        """Count a batch that was sent, and observe its number of units."""
        self._increment("rentstream_batches_total", sink, mode, outcome)
        self._observe("rentstream_batch_units", sink, value=units)

    def fresh(self, stage: str, seconds: float) -> None:
        """Observe the seconds that a change took to reach a stage."""
        self._observe("rentstream_freshness_seconds", stage, value=max(seconds, 0.0))

    def missed(self, system: str, changes: int) -> None:
        """Count changes that a sweep found and that no webhook announced."""
        self._increment("rentstream_webhook_misses_total", system, by=changes)

    def undelivered(self, sink: str, oldest_seconds: float) -> None:
        """Set the age of the oldest change that a receiver has not acknowledged."""
        self._set("rentstream_oldest_undelivered_seconds", sink, value=oldest_seconds)

    def open_dead_letters(self, sink: str, count: int) -> None:
        """Set how many deliveries have an open dead letter."""
        self._set("rentstream_open_dead_letters", sink, value=count)

    def doubts(self, kind: str, count: int) -> None:
        """Set how many units, or connections, have a kind of doubt."""
        self._set("rentstream_doubts", kind, value=count)

    def held_removals(self, system: str, count: int) -> None:
        """Set how many removals wait for a person."""
        self._set("rentstream_held_removals", system, value=count)

    def unswept(self, system: str, count: int) -> None:
        """Set how many enabled connections have no complete sweep."""
        self._set("rentstream_unswept_connections", system, value=count)

    def lost(self, topic: str, records: int) -> None:
        """Count records that Kafka may have lost."""
        self._increment("rentstream_lost_records_total", topic, by=records)

    def stopped(self, flow: str, partitions: int) -> None:
        """Set how many partitions of a fold are stopped."""
        self._set("rentstream_stopped_partitions", flow, value=partitions)

    def standby_lag(self, records: int) -> None:
        """Set how many records standby rows are behind."""
        self._set("rentstream_standby_lag", value=records)

    def lag(self, topic: str, partition: int, records: int, seconds: float | None) -> None:
        """Set the lag of a partition; None for ``seconds`` keeps the last value."""
        self._set("rentstream_consumer_lag", topic, str(partition), value=records)
        if seconds is not None:
            self._set("rentstream_consumer_lag_seconds", topic, str(partition), value=seconds)

    def forget_lag(self) -> None:
        """Remove the lag gauges while the cluster cannot be read: an outdated value would be misleading."""
        for name in LAG_METRICS:
            self._instruments[name].clear()
            self._children = {key: child for key, child in self._children.items() if key[0] != name}

    def parked_now(self, rung: str, records: int, overdue_seconds: float) -> None:
        """Set how many records wait on a rung, and for how many seconds the next one has been due."""
        self._set("rentstream_parked", rung, value=records)
        self._set("rentstream_retry_overdue_seconds", rung, value=overdue_seconds)

    # ---------------------------------------------------------------------------------------------------------- export

    def watch(self, name: str, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        """Read a gauge from a callback at every scrape; ``read`` returns pairs of label values and value.

        The callback runs on the thread of the metrics server.
        """
        spec = self._specs[name]
        assert spec.kind == "gauge"
        self.registry.unregister(self._instruments[name])
        self.registry.register(_CallbackGauge(spec, read))

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of one sample, or None if it does not exist yet."""
        return self.registry.get_sample_value(name, labels)


class _CallbackGauge(Collector):
    """A gauge whose values are read from a callback at every scrape."""

    def __init__(self, spec: Spec, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        self._spec = spec
        self._read = read

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._spec.name, self._spec.help, labels=self._spec.labels)
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family
