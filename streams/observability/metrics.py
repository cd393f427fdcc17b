"""THE CATALOGUE of metrics: every one that a process shows, as data; runbooks and dashboards name these.

Laws: labels are closed sets, never ids (what no set knows is counted as ``other``); a metric is moved by one method
here and nowhere else; every process (and every test) has a registry of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.core.retry import Reason

OTHER: Final = "other"

# ------------------------------------------------------------------------------------------------------ the catalogue

FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
CALLS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRESHNESS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
UNITS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10000)

VERDICTS: Final = ("applied", "ignored", "parked", "dead", "duplicate")
OUTCOMES: Final = ("ok", "gone", "throttled", "unavailable", "unauthorized", "missing", "rejected")
RESULTS: Final = (
    "accepted",
    "ignored",
    "unsigned",
    "malformed",
    "too_large",
    "too_slow",
    "refused",
    "unknown",
    "not_durable",
    "error",
)
MODES: Final = ("snapshot", "delta")
DELIVERED: Final = ("acknowledged", "throttled", "unavailable", "unauthorized", "missing", "rejected")
STAGES: Final = ("acknowledged",)

CLOSED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("rentstream_records_total", "verdict"): VERDICTS,
    ("rentstream_calls_total", "outcome"): OUTCOMES,
    ("rentstream_webhooks_total", "result"): RESULTS,
    ("rentstream_dead_letters_total", "reason"): tuple(reason.value for reason in Reason),
    ("rentstream_batches_total", "mode"): MODES,
    ("rentstream_batches_total", "outcome"): DELIVERED,
    ("rentstream_freshness_seconds", "stage"): STAGES,
}
"""The labels whose values are known here. All others are names of the topology or of the list of connectors."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


CATALOGUE: Final = (
    Spec("rentstream_records_total", "counter", "Records dealt with, by how they ended", ("flow", "verdict")),
    Spec("rentstream_record_seconds", "histogram", "Time from taking a record to its end", ("flow",), FAST),
    Spec("rentstream_calls_total", "counter", "Calls of the outside, by what it answered", ("port", "outcome")),
    Spec("rentstream_call_seconds", "histogram", "Time that a call of the outside took", ("port",), CALLS),
    Spec("rentstream_webhooks_total", "counter", "Webhooks that came in, by their answer", ("system", "result")),
    Spec("rentstream_consumer_lag", "gauge", "Records not yet committed by the topic's group", ("topic", "partition")),
    Spec(
        "rentstream_consumer_lag_seconds",
        "gauge",
        "Age of the oldest record not yet committed; 0 where all are",
        ("topic", "partition"),
    ),
    Spec("rentstream_parked", "gauge", "Records that wait on a rung of the retry ladder", ("rung",)),
    Spec(
        "rentstream_retry_overdue_seconds",
        "gauge",
        "How long the head of a rung has been due and was not brought back; 0 where none is",
        ("rung",),
    ),
    Spec(
        "rentstream_dead_letters_total",
        "counter",
        "Records given up, by the topic they came from",
        ("origin", "reason"),
    ),
    Spec(
        "rentstream_batches_total",
        "counter",
        "Batches POSTed, by what the receiver answered",
        ("sink", "mode", "outcome"),
    ),
    Spec("rentstream_batch_units", "histogram", "Units in a batch that was POSTed", ("sink",), UNITS),
    Spec(
        "rentstream_freshness_seconds",
        "histogram",
        "Time from hearing of a change to a stage of its way (acknowledged: the receiver has it)",
        ("stage",),
        FRESHNESS,
    ),
    Spec(
        "rentstream_oldest_undelivered_seconds",
        "gauge",
        "Age of the oldest change that a receiver does not have, waiting and parked ones included",
        ("sink",),
    ),
    Spec("rentstream_receiver_hold", "gauge", "1 while a receiver is on hold, else 0", ("sink",)),
    Spec(
        "rentstream_webhook_misses_total", "counter", "Changes that a sweep found and no webhook told of", ("system",)
    ),
    Spec("rentstream_api_budget_used_ratio", "gauge", "Used part of a system's API budget, 0 to 1", ("system",)),
)

FROM_THE_CLUSTER: Final = (
    "rentstream_consumer_lag",
    "rentstream_consumer_lag_seconds",
    "rentstream_parked",
    "rentstream_retry_overdue_seconds",
)
"""The gauges that the web role reads from the cluster."""

Counted = Counter | Gauge | Histogram


class Metrics:
    """The metrics of one process. A test reads them back with `value`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._specs = {spec.name: spec for spec in CATALOGUE}
        self._made: dict[str, Counted] = {spec.name: self._make(spec) for spec in CATALOGUE}
        self._children: dict[tuple[str, ...], Counted] = {}

    def _make(self, spec: Spec) -> Counted:
        if spec.kind == "counter":
            return Counter(spec.name, spec.help, spec.labels, registry=self.registry)
        if spec.kind == "gauge":
            return Gauge(spec.name, spec.help, spec.labels, registry=self.registry)
        return Histogram(spec.name, spec.help, spec.labels, buckets=spec.buckets, registry=self.registry)

    def _child(self, name: str, *labels: str) -> Counted:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            spec = self._specs[name]
            known = (
                value if value in CLOSED.get((name, label), (value,)) else OTHER
                for label, value in zip(spec.labels, labels, strict=True)
            )
            child = self._made[name].labels(*known)
            if len(self._children) < 10_000:
                self._children[key] = child
        return child

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Counter)
        child.inc(by)

    def _set(self, name: str, *labels: str, to: float) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Gauge)
        child.set(to)

    def _observe(self, name: str, *labels: str, seen: float) -> None:
        child = self._child(name, *labels)
        assert isinstance(child, Histogram)
        child.observe(seen)

    # ------------------------------------------------------------------------------------------------------ what moves

    def record(self, flow: str, verdict: str, seconds: float, records: int = 1) -> None:
        """Count a record (or some that ended alike) and the time that it took."""
        self._count("rentstream_records_total", flow, verdict, by=records)
        self._observe("rentstream_record_seconds", flow, seen=seconds)

    def dead(self, origin: str, reason: str) -> None:
        """Count a record that was given up; ``origin`` is its topic without the prefix."""
        self._count("rentstream_dead_letters_total", origin, reason)

    def call(self, port: str, outcome: str, seconds: float) -> None:
        """Count a call of the outside."""
        self._count("rentstream_calls_total", port, outcome)
        self._observe("rentstream_call_seconds", port, seen=seconds)

    def webhook(self, system: str, result: str) -> None:
        """Count a webhook by its answer."""
        self._count("rentstream_webhooks_total", system, result)

    def batch(self, sink: str, mode: str, outcome: str, units: int) -> None:
        """Count a batch that was POSTed."""
        self._count("rentstream_batches_total", sink, mode, outcome)
        self._observe("rentstream_batch_units", sink, seen=units)

    def fresh(self, stage: str, seconds: float) -> None:
        """Note how long a change took to reach a stage."""
        self._observe("rentstream_freshness_seconds", stage, seen=max(seconds, 0.0))

    def missed(self, system: str, changes: int) -> None:
        """Count changes that a sweep found and no webhook told of."""
        self._count("rentstream_webhook_misses_total", system, by=changes)

    def hold(self, sink: str, held: bool) -> None:
        """Say whether a receiver is on hold."""
        self._set("rentstream_receiver_hold", sink, to=float(held))

    def undelivered(self, sink: str, oldest_seconds: float) -> None:
        """Set the age of the oldest change that a receiver does not have."""
        self._set("rentstream_oldest_undelivered_seconds", sink, to=oldest_seconds)

    def lag(self, topic: str, partition: int, records: int, seconds: float | None) -> None:
        """Set what a topic's group has still to commit; ``seconds`` null leaves the age as it is."""
        self._set("rentstream_consumer_lag", topic, str(partition), to=records)
        if seconds is not None:
            self._set("rentstream_consumer_lag_seconds", topic, str(partition), to=seconds)

    def forget_lag(self) -> None:
        """Show no lag rather than an old one: while the cluster cannot be read, nobody knows it."""
        for name in FROM_THE_CLUSTER:
            self._made[name].clear()
            self._children = {key: child for key, child in self._children.items() if key[0] != name}

    def parked_now(self, rung: str, records: int, overdue_seconds: float) -> None:
        """Set how many records wait on a rung, and how long its head has been due."""
        self._set("rentstream_parked", rung, to=records)
        self._set("rentstream_retry_overdue_seconds", rung, to=overdue_seconds)

    # --------------------------------------------------------------------------------------------------- what is shown

    def watch(self, name: str, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        """Let a gauge be read when it is asked for, instead of being set: ``read`` gives values by labels.

        It is called on the thread of the metrics' server.
        """
        spec = self._specs[name]
        assert spec.kind == "gauge"
        self.registry.unregister(self._made[name])
        self.registry.register(_Watched(spec, read))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """Read one sample back; null if there is none yet."""
        return self.registry.get_sample_value(name, labels)


class _Watched(Collector):
    """A gauge that is read when it is asked for."""

    def __init__(self, spec: Spec, read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]) -> None:
        self._spec = spec
        self._read = read

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._spec.name, self._spec.help, labels=self._spec.labels)
        for labels, value in self._read():
            family.add_metric(labels, value)
        yield family
