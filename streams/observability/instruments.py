"""What a worker reports, as metrics: the observer, and ports that report their calls."""

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from connectors.ports import (
    Accepted,
    Clock,
    Failure,
    Fetched,
    Gone,
    Halfway,
    Invalid,
    ListingSink,
    Missing,
    PageOf,
    Priority,
    PropertyGateway,
    PropertySource,
    Pushed,
    Rejected,
    Throttled,
    Unauthorized,
    Undecided,
)
from schemas.base import EntityKind, Model
from schemas.commands import Push
from schemas.delivery import Batch, DeliveryDue, DeliveryOutcome, Doubt
from schemas.rent_roll import Page, SweepEnd
from streams.core.breaker import State
from streams.core.doubts import CONTRADICTIONS, TEXTS
from streams.core.flows import DoubtChange
from streams.core.observer import NullObserver, Observer
from streams.observability.metrics import Metrics

log = logging.getLogger("streams.observability.instruments")


def outcome(answer: object) -> str:  # noqa: PLR0911 -- a table
    """Return the label of an answer of the outside."""
    match answer:
        case Fetched(items=items) if items and all(isinstance(one, Gone) for one in items):
            return "gone"
        case Fetched() | PageOf() | Accepted() | Pushed():
            return "ok"
        case Halfway(why=why):
            return outcome(why)
        case Undecided():
            return "undecided"
        case Throttled():
            return "throttled"
        case Unauthorized():
            return "unauthorized"
        case Missing():
            return "missing"
        case Rejected() | Invalid():
            return "rejected"
        case _:
            return "unavailable"


class PrometheusObserver(NullObserver):
    """The observer of a stream worker: what the catalogue of metrics has a place for."""

    def __init__(self, metrics: Metrics, clock: Clock, system_of: Callable[[str, str], str], prefix: str = "") -> None:
        """``system_of`` returns the name of the system of an integration (org, name): labels are never ids.

        ``prefix`` is that of the names of topics, which the labels do not have.
        """
        self._prefix = prefix
        self._metrics = metrics
        self._clock = clock
        self._system_of = system_of
        self._oldest: dict[tuple[str, int], float] = {}
        self._dead_letters = _Sums(metrics.open_dead_letters)
        self._doubts = _Sums(metrics.doubts)
        self._held_removals = _Sums(metrics.held_removals)
        self._unswept = _Sums(metrics.unswept)

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        """Count the record and the time that it took."""
        self._metrics.record(flow, verdict, seconds)

    def dead_letter(self, origin: str, reason: str) -> None:
        """Count the dead letter."""
        self._metrics.dead(origin, reason)

    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None:
        """Count what webhooks missed, and log what a person has to look at."""
        if isinstance(record, DeliveryDue | DeliveryOutcome):
            if counts.get("closed"):
                where = f"property {record.property_id} of {record.org}/{record.connection}"
                log.info(
                    "%s: a dead letter of %s is void: the receiver knows the state, or it is another one by now",
                    flow,
                    where,
                )
            return
        if not isinstance(record, Page | SweepEnd):
            return
        if missed := counts.get("missed"):
            self._metrics.missed(self._system_of(record.org, record.connection), missed)
        held = counts.get("held_back")
        where = f"{record.org}/{record.connection}"
        if held:
            log.warning(
                "%s: %d entities of %s no longer exist according to the PMS, so many that their removal waits: "
                "look whether it still shows the whole account, then run `rentstream sync --confirm-removals`",
                flow,
                held,
                where,
            )
        elif held == 0:
            log.info("%s: no removal of %s waits any longer", flow, where)

    def breaker_moved(self, org: str, integration: str, state: str) -> None:
        """Log when an integration is not called any more, and when it is again."""
        if state == State.OPEN:
            log.warning("%s of %s cannot be used: its records are held until a trial succeeds", integration, org)
        elif state == State.CLOSED:
            log.info("%s of %s can be used again", integration, org)

    def port_called(self, port: str, answer: object, seconds: float) -> None:
        """Count the call and the time that it took."""
        self._metrics.call(port, outcome(answer), seconds)

    def delivery_answered(self, batch: Batch, answer: Accepted | Failure) -> None:
        """Count the delivery, and how long its oldest change took."""
        delivered = "acknowledged" if isinstance(answer, Accepted) else outcome(answer)
        self._metrics.batch(self._system_of(batch.org, batch.sink), batch.mode.value, delivered, len(batch.units))
        if isinstance(answer, Accepted):
            self._metrics.fresh("acknowledged", (self._clock.now() - batch.seen_at).total_seconds())

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        """Keep the oldest of each partition; the gauge is the oldest of all."""
        self._oldest[sink, partition] = seconds
        self._metrics.undelivered(sink, max(age for (name, _), age in self._oldest.items() if name == sink))

    def doubt_changed(self, change: DoubtChange) -> None:
        """Log the doubt; what a person should correct in the PMS is a warning as long as it lasts."""
        level = logging.WARNING if change.appeared and change.doubt in CONTRADICTIONS else logging.INFO
        where = f"{change.org}/{change.connection}"
        if change.property_id is not None:
            where += f" property {change.property_id}"
        units = f" (units {', '.join(map(str, change.units))})" if change.units else ""
        ended = "" if change.appeared else "no longer: "
        log.log(level, "%s%s: %s%s", where, units, ended, TEXTS[change.doubt])

    def dead_letters_open(self, partition: int, counts: Mapping[str, int]) -> None:
        """Keep the counts of each partition; the gauges are their sums."""
        self._dead_letters.put(partition, counts)

    def doubts_counted(self, partition: int, counts: Mapping[Doubt, int]) -> None:
        """Keep the counts of each partition; the gauges are their sums."""
        self._doubts.put(partition, {doubt.value: counts.get(doubt, 0) for doubt in TEXTS})

    def removals_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        """Keep the counts of each partition; the gauges are their sums."""
        self._held_removals.put(partition, counts)

    def unswept_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        """Keep the counts of each partition; the gauges are their sums."""
        self._unswept.put(partition, counts)

    def records_lost(self, topic: str, records: int) -> None:
        self._metrics.lost(topic.removeprefix(self._prefix), records)

    def partitions_stopped(self, counts: Mapping[str, int]) -> None:
        for flow, count in counts.items():
            self._metrics.stopped(flow, count)

    def partition_scanned(self, scan: str, partition: int, effects: int, seconds: float) -> None:
        del partition, effects
        self._metrics.scanned(scan, seconds)

    def standbys_measured(self, records: int) -> None:
        self._metrics.standby_lag(records)

    def partitions_assigned(self, partitions: frozenset[int], seconds: float) -> None:
        """Forget what another worker reports from now on."""
        del seconds
        sinks = {sink for sink, _ in self._oldest}
        self._oldest = {key: age for key, age in self._oldest.items() if key[1] in partitions}
        for sink in sinks:
            self._metrics.undelivered(
                sink, max((age for (name, _), age in self._oldest.items() if name == sink), default=0.0)
            )
        self._dead_letters.keep(partitions)
        self._doubts.keep(partitions)
        self._held_removals.keep(partitions)
        self._unswept.keep(partitions)


def show_holds(metrics: Metrics, sinks: Collection[str], held: Callable[[], Collection[str]]) -> None:
    """Export which of the systems ``sinks`` have a receiver on hold; ``held`` returns them, in any thread."""

    def read() -> list[tuple[tuple[str, ...], float]]:
        systems = held()
        return [((system,), float(system in systems)) for system in sinks]

    metrics.watch("rentstream_receiver_hold", read)


class _Sums:
    """Counts by partition and label: each label shows its sum over the owned partitions."""

    def __init__(self, show: Callable[[str, int], None]) -> None:
        self._show = show
        self._counts: dict[int, Mapping[str, int]] = {}
        self._labels: set[str] = set()

    def put(self, partition: int, counts: Mapping[str, int]) -> None:
        """Replace the counts of a partition."""
        self._counts[partition] = counts
        self._labels |= counts.keys()
        self._update()

    def keep(self, partitions: frozenset[int]) -> None:
        """Forget the counts of all other partitions."""
        self._counts = {partition: counts for partition, counts in self._counts.items() if partition in partitions}
        self._update()

    def _update(self) -> None:
        for label in self._labels:
            self._show(label, sum(counts.get(label, 0) for counts in self._counts.values()))


class MeasuredSource:
    """A `PropertySource` whose calls are reported."""

    def __init__(self, source: PropertySource, observer: Observer, clock: Clock) -> None:
        self._source = source
        self._observer = observer
        self._clock = clock

    @property
    def page_size(self) -> int:
        return self._source.page_size

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        began = self._clock.monotonic()
        answer = await self._source.fetch(kind, entity, priority)
        self._observer.port_called("PropertySource", answer, self._clock.monotonic() - began)
        return answer

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        began = self._clock.monotonic()
        answer = await self._source.page(kind, offset, priority)
        self._observer.port_called("PropertySource", answer, self._clock.monotonic() - began)
        return answer

    async def changed(
        self, kind: EntityKind, since: datetime, offset: int, priority: Priority = Priority.WEBHOOK
    ) -> PageOf | Failure:
        began = self._clock.monotonic()
        answer = await self._source.changed(kind, since, offset, priority)
        self._observer.port_called("PropertySource", answer, self._clock.monotonic() - began)
        return answer

    async def all_of(
        self, kind: EntityKind, property_id: int, priority: Priority = Priority.WEBHOOK
    ) -> Fetched | Failure:
        began = self._clock.monotonic()
        answer = await self._source.all_of(kind, property_id, priority)
        self._observer.port_called("PropertySource", answer, self._clock.monotonic() - began)
        return answer

    async def aclose(self) -> None:
        await self._source.aclose()


class MeasuredGateway:
    """A `PropertyGateway` whose pushes are reported."""

    def __init__(self, gateway: PropertyGateway, observer: Observer, clock: Clock) -> None:
        self._gateway = gateway
        self._observer = observer
        self._clock = clock

    async def push(self, push: Push) -> Pushed | Undecided | Invalid | Halfway | Failure:
        began = self._clock.monotonic()
        answer = await self._gateway.push(push)
        self._observer.port_called("PropertyGateway", answer, self._clock.monotonic() - began)
        return answer


class MeasuredSink:
    """A `ListingSink` whose calls are reported."""

    def __init__(self, sink: ListingSink, observer: Observer, clock: Clock) -> None:
        self._sink = sink
        self._observer = observer
        self._clock = clock

    @property
    def name(self) -> str:
        return self._sink.name

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        began = self._clock.monotonic()
        answer = await self._sink.deliver(batch)
        self._observer.port_called("ListingSink", answer, self._clock.monotonic() - began)
        return answer

    async def aclose(self) -> None:
        await self._sink.aclose()
