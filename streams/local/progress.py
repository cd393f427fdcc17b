"""Report the progress of sweeps and deliveries, as read from the topics, in lines for a person."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas import topics
from schemas.base import EntityKind, Model
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.delivery import Batch, DeliveryOutcome, DeliveryResult
from schemas.pms import SweepStep
from schemas.rent_roll import SweepEnd
from streams.backends.deadlines import stop_client

PLURAL = {
    EntityKind.PROPERTY: "properties",
    EntityKind.UNIT: "units",
    EntityKind.LEASE: "leases",
    EntityKind.LISTING: "listings",
}
DISPLAY_NAMES = {"rentsync": "RentSync"}

ENDINGS = {
    DeliveryResult.WAITING: "failed, retry pending",
    DeliveryResult.DEAD: "failed, moved to dead letters",
    DeliveryResult.CANCELLED: "cancelled",
}
"""How a delivery that was not acknowledged is reported."""

SUMMARY_DELAY = 0.7
"""Seconds without a new record after which the acknowledged batches are summed up in one line."""


class ProgressReporter:
    """Turns records of sweeps and deliveries into lines of text; those of another org begin with its name."""

    def __init__(self, echo: Callable[[str], None], page_size: int = 1000, first_org: str = "default") -> None:
        self._echo = echo
        self._page_size = page_size
        self._first_org = first_org
        self._units: dict[tuple[str, str, int, int], int] = {}
        """Number of units by org, sink, property and version, for batches whose outcome is not known yet."""
        self._acknowledged: dict[tuple[str, str], tuple[int, int]] = {}
        """Batches and units by org and sink, since the last summary."""
        self._reported: set[tuple[str, str]] = set()
        self._swept: set[str] = set()
        """Orgs whose first sweep is complete."""
        self.swept = asyncio.Event()
        """Set when a sweep is complete."""
        self.delivered = asyncio.Event()
        """Set when the first acknowledged batch was reported."""

    def observe(self, record: Model) -> None:
        """Process one record of a topic."""
        match record:
            case SweepStep():
                self._sweeping(record)
            case SweepEnd(org=org, entities=entities):
                self._report(org, f"sweep complete: {entities} entities read")
                self._swept.add(org)
                self.swept.set()
            case Batch():
                self._units[record.org, record.sink, record.property.id, record.version] = len(record.units)
            case DeliveryOutcome(result=DeliveryResult.ACKNOWLEDGED):
                batches, units = self._acknowledged.get((record.org, record.sink), (0, 0))
                units += self._units.pop((record.org, record.sink, record.property_id, record.version), 0)
                self._acknowledged[record.org, record.sink] = batches + 1, units
            case DeliveryOutcome(result=result) if result in ENDINGS:
                self._report(record.org, f"{_delivery(record)} {ENDINGS[result]}: {record.detail}")
            case _:
                pass

    def _sweeping(self, step: SweepStep) -> None:
        """Report a step of an org's first sweep; of later sweeps only long stages and the end are reported."""
        noun = PLURAL[step.stage]
        if step.total is None:
            if step.org not in self._swept:
                part = list(PLURAL).index(step.stage) + 1
                text = f"sweep: part {part} of {len(PLURAL)}, {noun}; {step.entities} entities so far"
                self._report(step.org, text)
        elif step.offset < step.total:
            page, pages = step.offset // self._page_size, -(-step.total // self._page_size)
            self._report(step.org, f"sweep: {noun}, {page} of {pages} pages, {step.offset} of {step.total}")

    def summarize(self) -> None:
        """Report the batches that were acknowledged since the last summary."""
        for (org, sink), (batches, units) in self._acknowledged.items():
            label = "batches" if (org, sink) in self._reported else "first batches"
            self._reported.add((org, sink))
            what = f"{_count(batches, 'property')} and {_count(units, 'unit')}"
            self._report(org, f"{label}: {what} acknowledged by {_name(sink)}")
        if self._acknowledged:
            self.delivered.set()
        self._acknowledged.clear()

    def _report(self, org: str, text: str) -> None:
        self._echo(text if org == self._first_org else f"{org}: {text}")


def _delivery(outcome: DeliveryOutcome) -> str:
    return f"delivery of property {outcome.property_id} to {_name(outcome.sink)}"


def _name(sink: str) -> str:
    return DISPLAY_NAMES.get(sink, sink)


def _count(number: int, noun: str) -> str:
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{number} {noun if number == 1 else plural}"


async def report_progress(
    reporter: ProgressReporter,
    servers: str,
    security: dict[str, Any],
    prefix: str,
    partitions: int,
    ready: asyncio.Event,
) -> None:
    """Read the topics from their current ends until cancelled; set ``ready`` once later records cannot be missed."""
    watched = (topics.SWEEPS, topics.CHANGES, topics.BATCHES, topics.OUTCOMES)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, fetch_max_wait_ms=100, **security)
    await consumer.start()
    try:
        consumer.assign(
            [TopicPartition(prefix + topic.name, number) for topic in watched for number in range(partitions)]
        )
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        ready.set()
        idle_since = time.monotonic()
        while True:
            fetched = await consumer.getmany(timeout_ms=200)
            for records in fetched.values():
                for record in records:
                    try:
                        reporter.observe(decode(record.value))
                    except (DecodeError, UnknownWriter):
                        continue
            if fetched:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > SUMMARY_DELAY:
                reporter.summarize()
    finally:
        await stop_client(consumer)
