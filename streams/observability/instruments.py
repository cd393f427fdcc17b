"""What the parts tell, as metrics: the hooks of the shells, and ports that are measured as they are called."""

import logging
from collections.abc import Mapping

from connectors.ports import (
    Accepted,
    Clock,
    Failure,
    Fetched,
    Gone,
    ListingSink,
    Missing,
    PageOf,
    Priority,
    PropertySource,
    Rejected,
    Throttled,
    Unauthorized,
)
from schemas.base import EntityKind, Model
from schemas.delivery import Batch
from streams.observability.metrics import Metrics

log = logging.getLogger("streams.observability.instruments")


def outcome(answer: object) -> str:  # noqa: PLR0911 -- a table
    """Name an answer of the outside for a label."""
    match answer:
        case Fetched(items=items) if items and all(isinstance(one, Gone) for one in items):
            return "gone"
        case Fetched() | PageOf():
            return "ok"
        case Accepted():
            return "acknowledged"
        case Throttled():
            return "throttled"
        case Unauthorized():
            return "unauthorized"
        case Missing():
            return "missing"
        case Rejected():
            return "rejected"
        case _:
            return "unavailable"


class PrometheusHooks:
    """The hooks of a stream worker (`streams.wiring.Hooks`)."""

    def __init__(self, metrics: Metrics, clock: Clock, system: str = "buildium") -> None:
        self._metrics = metrics
        self._clock = clock
        self._system = system
        self._oldest: dict[tuple[str, int], float] = {}

    def record(self, flow: str, verdict: str, seconds: float) -> None:
        self._metrics.record(flow, verdict, seconds)

    def dead(self, origin: str, reason: str) -> None:
        self._metrics.dead(origin, reason)

    def parked(self, rung: str) -> None:
        self._metrics.parked(rung)

    def counted(self, flow: str, counts: Mapping[str, int]) -> None:
        """Count what a fold found out, and say aloud what a person has to look at."""
        if missed := counts.get("missed"):
            self._metrics.missed(self._system, missed)
        if held := counts.get("held_back"):
            log.warning(
                "%s: a complete sweep missed so many entities (%d) that none of them is believed to be gone; "
                "look whether the PMS, or the key's permissions, still show the whole account",
                flow,
                held,
            )

    def said(self, flow: str, said: Model) -> None:
        """Hear what a fold says; the receivers' answers tell more."""
        del flow, said

    def told(self, batch: Batch, answer: Accepted | Failure) -> None:
        """Count a delivery, and how long its oldest change took."""
        self._metrics.batch(batch.sink, batch.mode.value, outcome(answer), len(batch.units))
        if isinstance(answer, Accepted):
            self._metrics.fresh("acknowledged", (self._clock.now() - batch.seen_at).total_seconds())

    def oldest(self, sink: str, partition: int, seconds: float) -> None:
        """Keep the oldest of each partition; the gauge is the oldest of all."""
        self._oldest[sink, partition] = seconds
        self._metrics.undelivered(sink, max(age for (name, _), age in self._oldest.items() if name == sink))

    def forget(self, partitions: frozenset[int]) -> None:
        """Forget what is no longer ours to tell."""
        self._oldest = {key: age for key, age in self._oldest.items() if key[1] in partitions}


class MeasuredSource:
    """A `PropertySource` whose calls are counted."""

    def __init__(self, source: PropertySource, metrics: Metrics, clock: Clock) -> None:
        self._source = source
        self._metrics = metrics
        self._clock = clock

    @property
    def page_size(self) -> int:
        return self._source.page_size

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        began = self._clock.monotonic()
        answer = await self._source.fetch(kind, entity, priority)
        self._metrics.call("PropertySource", outcome(answer), self._clock.monotonic() - began)
        return answer

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        began = self._clock.monotonic()
        answer = await self._source.page(kind, offset, priority)
        self._metrics.call("PropertySource", outcome(answer), self._clock.monotonic() - began)
        return answer

    async def aclose(self) -> None:
        await self._source.aclose()


class MeasuredSink:
    """A `ListingSink` whose calls are counted."""

    def __init__(self, sink: ListingSink, metrics: Metrics, clock: Clock) -> None:
        self._sink = sink
        self._metrics = metrics
        self._clock = clock

    @property
    def name(self) -> str:
        return self._sink.name

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        began = self._clock.monotonic()
        answer = await self._sink.deliver(batch)
        said = "ok" if isinstance(answer, Accepted) else outcome(answer)
        self._metrics.call("ListingSink", said, self._clock.monotonic() - began)
        return answer

    async def aclose(self) -> None:
        await self._sink.aclose()
