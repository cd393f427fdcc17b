"""``rentstream status``: what is fresh, what waits and what failed, read from the log and the cluster."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.clock import SystemClock
from schemas.commands import SyncState
from streams import topology
from streams.backends.admin import TopicAdmin, TopicError
from streams.backends.clients import client_options
from streams.backends.ports import BackendError
from streams.directory.model import IntegrationState
from streams.observability.lag import LagExporter, PartitionLag, parked
from streams.observability.metrics import Metrics
from streams.roles import manage
from streams.roles.integrations import kafka_backend
from streams.runners.global_ import Follow, within
from streams.settings import KafkaSettings, RentStreamSettings
from streams.syncs.book import SyncBook
from streams.syncs.service import FAILED
from streams.web.api.command_models import Sync

NO_INTEGRATIONS = (
    "{org} has no integrations; those that the environment describes are shown if the command has the workers' settings"
)

MOST = 10
"""Failed syncs that are shown as text."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Records of a topic that are not processed yet."""

    topic: str
    records: int
    seconds: float | None
    """Age of the oldest; null if it cannot be read in time. Of a rung: how long it has been due."""


@dataclass(frozen=True, slots=True)
class Status:
    """The condition of an org, and of what all orgs share."""

    org: str
    integrations: Sequence[IntegrationState]
    failed: Sequence[SyncState]
    waiting: Sequence[Waiting]
    """Topics on which records wait, by name; rungs are not among them."""
    parked: Mapping[str, tuple[int, float]]
    """Records on each rung, and for how many seconds the next one has been due."""

    @property
    def is_well(self) -> bool:
        """Return whether nothing is on hold, failed or overdue."""
        held = any(one.enabled and one.hold for one in self.integrations)
        overdue = any(seconds > OVERDUE for _, seconds in self.parked.values())
        stuck = any(one.seconds is None or one.seconds > OVERDUE for one in self.waiting)
        return not (held or self.failed or overdue or stuck)


OVERDUE = 60.0
"""Seconds after which a record that waits to be processed is a problem."""


def waiting_of(lags: Sequence[PartitionLag]) -> list[Waiting]:
    """Return the topics on which records wait to be processed, rungs left out."""
    found: dict[str, list[PartitionLag]] = {}
    for one in lags:
        if one.records and not one.topic.startswith("retry."):
            found.setdefault(one.topic, []).append(one)
    return [
        Waiting(
            topic,
            sum(one.records for one in several),
            None if any(one.seconds is None for one in several) else max(one.seconds or 0.0 for one in several),
        )
        for topic, several in sorted(found.items())
    ]


async def read(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, org: str) -> Status:
    """Return the status of an org.

    Raise `streams.roles.manage.ManageFailed` if the cluster cannot be read, and
    `connectors.settings.SettingsError`.
    """
    clock, book = SystemClock(), SyncBook()
    topics_ = tuple(topic.name for topic in topology.flow("follow_syncs").reads)
    follower = Follow(kafka_backend(settings, kafka, "status"), topics_, book, clock)
    following = asyncio.create_task(follower.run())
    client = {"bootstrap_servers": kafka.bootstrap_servers, **client_options(kafka)}
    exporter = LagExporter(
        client, topology.groups(settings.delays), settings.partitions, Metrics(), clock, settings.prefix
    )
    try:
        async with manage.service(env, settings, kafka) as integrations:
            states = await integrations.list(org)
        try:
            await within(clock, follower.caught_up(), manage.READ_WITHIN)
            lags = await within(clock, exporter.first(), manage.READ_WITHIN)
        except (TimeoutError, BackendError) as error:
            if wrong := await _wrong_topics(settings, kafka):
                raise manage.ManageFailed(
                    f"{wrong}. If the workers run, this command lacks their settings: RENTSTREAM_RETRY_LADDER, "
                    "RENTSTREAM_PARTITIONS and RENTSTREAM_TOPIC_PREFIX have to be the same."
                ) from None
            reason = str(error) or follower.problem or f"not read within {manage.READ_WITHIN:g} s"
            raise manage.ManageFailed(f"the cluster cannot be read ({reason}): check KAFKA_BOOTSTRAP_SERVERS") from None
        rungs = {rung: found for rung, found in parked(lags).items() if found[0]}
        return Status(org, states, book.states(org, *FAILED), waiting_of(lags), rungs)
    finally:
        await exporter.aclose()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _wrong_topics(settings: RentStreamSettings, kafka: KafkaSettings) -> str:
    """Return which topics of these settings are missing or wrong; empty if none is, or if the cluster is away."""
    servers, security = kafka.bootstrap_servers or "", client_options(kafka)
    try:
        async with TopicAdmin(
            servers, prefix=settings.prefix, partitions=settings.partitions, security=security
        ) as admin:
            return "; ".join(await admin.unusable(topology.all_topics(settings.delays))).rstrip(".")
    except TopicError:
        return ""


def run(env: Mapping[str, str], settings: RentStreamSettings, kafka: KafkaSettings, org: str) -> Status:
    """Return the status of an org; see `read`."""
    return asyncio.run(read(env, settings, kafka, org))


# ------------------------------------------------------------------------------------------------------------ output


def as_json(status: Status, url: str) -> dict[str, Any]:
    """Return the status for programs; integrations and syncs have the form of the API."""
    return {
        "org": status.org,
        "ok": status.is_well,
        "integrations": [manage.as_json(one, url) for one in status.integrations],
        "failedSyncs": [Sync.of(one).model_dump(mode="json", by_alias=True) for one in status.failed],
        "waiting": [{"topic": one.topic, "records": one.records, "seconds": one.seconds} for one in status.waiting],
        "parked": [
            {"rung": rung, "records": records, "overdueSeconds": seconds}
            for rung, (records, seconds) in status.parked.items()
        ],
    }


def lines(status: Status) -> list[str]:
    """Return the status for people."""
    found = manage.table(status.integrations) if status.integrations else [NO_INTEGRATIONS.format(org=status.org)]
    for one in status.integrations:
        if one.enabled and one.hold:
            found.append(f"on hold: {one.name}: {one.hold}")
        if one.sync_detail:
            found.append(f"{one.name}: {one.sync_detail}")
    found.append("")
    for waiting in status.waiting:
        age = "of unknown age" if waiting.seconds is None else f"the oldest for {waiting.seconds:.0f} s"
        found.append(f"waiting: {_counted(waiting.records)} on {waiting.topic}, {age}")
    for rung, (records, seconds) in status.parked.items():
        late = f", overdue for {seconds:.0f} s" if seconds > 1 else ""
        found.append(f"parked: {_counted(records)} for {rung}{late}")
    if not status.waiting and not status.parked:
        found.append("nothing waits: every record is processed")
    for failed in status.failed[:MOST]:
        found.append(f"{failed.status}: {failed.entity} {failed.id} ({failed.name}): {failed.detail}")
    if len(status.failed) > MOST:
        found.append(f"and {len(status.failed) - MOST} more; GET /api/buildium/sync lists all of them")
    if not status.failed:
        found.append("no sync failed")
    return found


def _counted(records: int) -> str:
    return "1 record" if records == 1 else f"{records} records"
