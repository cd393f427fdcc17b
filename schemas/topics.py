"""THE CATALOGUE of topics: every name, what travels on it, and how long it stays.

All have the same number of partitions, and all records of an org are on the same partition of each. Names are here
without the prefix of `RENTSTREAM_TOPIC_PREFIX`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.base import Model
from schemas.integrations import STATUS_KINDS
from schemas.replay import REPLAY_KINDS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS


KeyOf = Callable[[Any], str]
"""Returns the key of a record: what compaction keeps the last one of. The partition follows from the org alone."""


def by_org(record: Any) -> str:
    """Return the org of a record."""
    org: str = record.org
    return org


def by_integration(record: Any) -> str:
    """Return ``org/name`` of an integration's record."""
    return f"{record.org}/{record.name}"


def by_integration_and_kind(record: Model) -> str:
    """Return ``org/name/kind`` (``default/buildium/sync``): of each kind of status the last record is kept."""
    return f"{by_integration(record)}/{STATUS_KINDS[type(record)]}"


def by_replay_and_kind(record: Any) -> str:
    """Return ``org/id/kind`` (``default/20261127T140000Z-3f/plan``) of a record of a replay."""
    return f"{record.org}/{record.id}/{REPLAY_KINDS[type(record)]}"


def by_entity(record: Any) -> str:
    """Return ``org/entity/id`` (``default/property/7d1…``) of a state of a property or an owner."""
    return f"{record.org}/{record.entity}/{record.id}"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic: ``retention_ms`` null keeps records forever (a compacted topic keeps the last record of each key).

    A record's partition is always that of its org (`schemas.partitions.partition_for`); its key may be finer.
    """

    name: str
    description: str
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int | None = WEEK_MS
    max_message_bytes: int = 8 << 20
    extra: Mapping[str, str] = field(default_factory=dict, hash=False)
    key: KeyOf = by_org

    def key_of(self, record: Model) -> bytes:
        """Return the key under which a record is written."""
        return self.key(record).encode()


COMMANDS = TopicSpec("pms.commands", "requests to create or change properties and owners in the PMS")
PUSHES = TopicSpec("pms.pushes", "operations that are to be made in the PMS")
SYNC_EVENTS = TopicSpec("sync.events", "what the PMS answered to operations")
SYNC_STATES = TopicSpec(
    "sync.states",
    "whether the PMS has each property and owner",
    cleanup="compact",
    retention_ms=None,
    key=by_entity,
)
WEBHOOKS = TopicSpec("pms.webhooks", "requests to fetch what changed in the PMS")
SWEEPS = TopicSpec("pms.sweeps", "steps of full reads of an account", retention_ms=3 * DAY_MS)
PULSES = TopicSpec(
    "pms.pulses", "requests to read what changed in an account since a point in time", retention_ms=DAY_MS
)
RECHECKS = TopicSpec("pms.rechecks", "entities that a full read missed, to be fetched by id", retention_ms=DAY_MS)
CHANGES = TopicSpec("rent-roll.changes", "pages of entities as fetched, and ends of sweeps", retention_ms=3 * DAY_MS)
LINGERING = TopicSpec(
    "deliveries.lingering", "changed properties, held while further changes gather", retention_ms=DAY_MS
)
DUE = TopicSpec("deliveries.due", "properties whose state a receiver may not know")
BATCHES = TopicSpec("deliveries.batches", "what is to be POSTed")
OUTCOMES = TopicSpec("deliveries.outcomes", "what receivers answered")
INTEGRATIONS = TopicSpec(
    "integrations",
    "configurations of integrations, secrets encrypted",
    cleanup="compact",
    retention_ms=None,
    key=by_integration,
)
INTEGRATION_STATUS = TopicSpec(
    "integrations.status",
    "last connection test, sync and hold of each integration",
    cleanup="compact",
    retention_ms=None,
    key=by_integration_and_kind,
)
INTEGRATION_HISTORY = TopicSpec(
    "integrations.history",
    "changes of integrations, without secrets",
    retention_ms=366 * DAY_MS,
    key=by_integration,
)
REPLAY_STATES = TopicSpec(
    "replays.states",
    "plans of replays, orders of people, and how far each replay is",
    cleanup="compact",
    retention_ms=None,
    key=by_replay_and_kind,
)
REPLAY_STEPS = TopicSpec("replays.steps", "requests to replay the next records of a plan", retention_ms=DAY_MS)
DEAD_LETTERS = TopicSpec("dead-letters", "what was given up, with its bytes and the reason", retention_ms=30 * DAY_MS)


def rung(delay: str) -> TopicSpec:
    """The topic of one rung of the retry ladder; ``delay`` as the setting writes it (``5m``)."""
    return TopicSpec(f"retry.{delay}", f"records that wait {delay} before they are tried again")


def changelog(app: str, table: str) -> TopicSpec:
    """The changelog of a table, under the name that Faust gives it."""
    return TopicSpec(
        f"{app}-{table}-changelog",
        f"the rows of table {table}",
        cleanup="compact",
        retention_ms=None,
        # Only closed segments are compacted, and a recovery reads whatever is not: with Kafka's 1 GiB that is every
        # version of every row. Kafka Streams makes the segments of its changelogs smaller for the same reason.
        extra={
            "min.cleanable.dirty.ratio": "0.2",
            "segment.bytes": str(8 << 20),
            "segment.ms": str(HOUR_MS),
        },
    )


TOPICS = (
    COMMANDS,
    PUSHES,
    SYNC_EVENTS,
    SYNC_STATES,
    WEBHOOKS,
    PULSES,
    SWEEPS,
    RECHECKS,
    CHANGES,
    LINGERING,
    DUE,
    BATCHES,
    OUTCOMES,
    INTEGRATIONS,
    INTEGRATION_STATUS,
    INTEGRATION_HISTORY,
    REPLAY_STATES,
    REPLAY_STEPS,
    DEAD_LETTERS,
)
"""Every topic but the rungs and the changelogs, which follow from the settings and the topology."""
