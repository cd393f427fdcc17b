"""The dataflow as data: which flow reads which topics, writes which table, and writes to which topics.

The runners, the topics, the labels of metrics and ``docs/topology.md`` follow from it; its rules are tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from schemas import topics
from schemas.topics import TopicSpec

APP = "streams"
"""Consumer group (with the prefix) of the folds, which are one Faust app."""


class Kind(StrEnum):
    """The five kinds of flow, and the edge where records enter from outside."""

    INGRESS = "ingress"
    FOLD = "fold"
    CALL = "call"
    REDELIVER = "redeliver"
    SCAN = "scan"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow. Its name is the agent, the metrics' label, the log field and the file in ``streams/flows``."""

    name: str
    kind: Kind
    description: str
    reads: tuple[TopicSpec, ...] = ()
    writes: tuple[TopicSpec, ...] = ()
    table: str | None = None
    """The table that it writes; a table has one writer."""
    views: tuple[str, ...] = ()
    """Tables of the same org that it reads."""
    port: str | None = None
    group: str | None = None
    """Consumer group (without prefix) of a call or a redeliver; flows of one group share its owner of an org."""
    batch_size: int | None = None
    """Of a fold: records of one batch, where one record may mean much work (the cut of a whole property)."""
    retries: bool = False
    """Whether its records climb the ladder; a topic that is retried has one consumer."""
    returns_to: TopicSpec | None = None
    """Of a call that retries: the topic that decides again, where that is not the one that it reads."""
    coalesce: bool = False
    """Of a call: records of one key that wait behind each other are settled by one call."""
    max_in_flight: int = 0
    """Of a call: calls in flight of one worker, over all orgs."""
    max_in_flight_per_integration: int = 0
    """Of a call: of these, for one integration, so that an outage of one leaves room for the others."""
    background: bool = False
    """Of a call: it begins nothing while the folds of its worker do not run, which leaves them the processor."""
    every: float = 0.0
    """Of a scan: seconds between two passes."""


RENT_ROLL, DELIVERIES, SYNC_STATES = "rent-roll", "deliveries", "sync-states"
DERIVED = frozenset({RENT_ROLL, DELIVERIES})
"""Tables whose rows are made again from outside: by the next sweep, and by a snapshot. The others have what is nowhere
else, such as the id of an entity in the PMS."""
READERS = "readers"

FLOWS: tuple[Flow, ...] = (
    Flow(
        "receive_commands",
        Kind.INGRESS,
        "takes properties and owners of upstream apps, and answers once they are durable",
        writes=(topics.COMMANDS,),
    ),
    Flow(
        "track_syncs",
        Kind.FOLD,
        "orders commands, and keeps what became of each property and owner",
        reads=(topics.COMMANDS, topics.SYNC_EVENTS),
        writes=(topics.PUSHES, topics.SYNC_STATES),
        table=SYNC_STATES,
    ),
    Flow(
        "push_commands",
        Kind.CALL,
        "creates and changes a property or an owner in the PMS",
        reads=(topics.PUSHES,),
        writes=(topics.SYNC_EVENTS, topics.INTEGRATION_STATUS),
        port="PropertyGateway",
        group=READERS,
        retries=True,
        returns_to=topics.COMMANDS,
        coalesce=True,
        max_in_flight=128,
        max_in_flight_per_integration=4,
    ),
    Flow(
        "watch_syncs",
        Kind.SCAN,
        "has operations tried again that no record would end any more",
        writes=(topics.COMMANDS,),
        views=(SYNC_STATES,),
        every=60.0,
    ),
    Flow(
        "follow_syncs",
        Kind.GLOBAL,
        "keeps the commands and the states of all properties and owners in the memory of a web role",
        reads=(topics.COMMANDS, topics.SYNC_STATES),
    ),
    Flow(
        "receive_webhooks",
        Kind.INGRESS,
        "verifies a PMS's webhook and answers once it is durable",
        writes=(topics.WEBHOOKS,),
        port="WebhookReader",
    ),
    Flow(
        "manage_integrations",
        Kind.INGRESS,
        "stores, tests, deletes and refreshes integrations for the API and the command line",
        writes=(
            topics.INTEGRATIONS,
            topics.INTEGRATION_STATUS,
            topics.INTEGRATION_HISTORY,
            topics.SWEEPS,
            topics.WEBHOOKS,
            topics.DUE,
        ),
        port="System",
    ),
    Flow(
        "follow_integrations",
        Kind.GLOBAL,
        "keeps all integrations and their status in the memory of every process",
        reads=(topics.INTEGRATIONS, topics.INTEGRATION_STATUS),
    ),
    Flow(
        "schedule_sweeps",
        Kind.SCAN,
        "starts the full reads of accounts that are due",
        writes=(topics.SWEEPS,),
        views=(RENT_ROLL,),
        every=1.0,
    ),
    Flow(
        "fetch_changes",
        Kind.CALL,
        "reads the entity that a webhook names, as it is now",
        reads=(topics.WEBHOOKS,),
        writes=(topics.CHANGES, topics.INTEGRATION_STATUS),
        port="PropertySource",
        group=READERS,
        retries=True,
        coalesce=True,
        max_in_flight=512,
        max_in_flight_per_integration=12,
    ),
    Flow(
        "schedule_pulses",
        Kind.SCAN,
        "asks regularly what changed in each account",
        writes=(topics.PULSES,),
        views=(RENT_ROLL,),
        every=1.0,
    ),
    Flow(
        "pulse_accounts",
        Kind.CALL,
        "reads what was updated since the last pulse, and the listings if they are few",
        reads=(topics.PULSES,),
        writes=(topics.CHANGES, topics.WEBHOOKS, topics.INTEGRATION_STATUS),
        port="PropertySource",
        group=READERS,
        coalesce=True,
        max_in_flight=64,
        max_in_flight_per_integration=1,
        background=True,
    ),
    Flow(
        "sweep_accounts",
        Kind.CALL,
        "reads an account whole, some pages at a time",
        reads=(topics.SWEEPS,),
        writes=(topics.CHANGES, topics.SWEEPS, topics.INTEGRATION_STATUS),
        port="PropertySource",
        group=READERS,
        retries=True,
        max_in_flight=128,
        max_in_flight_per_integration=1,
        background=True,
    ),
    Flow(
        "recheck_missed",
        Kind.CALL,
        "reads by their ids the entities that a complete sweep missed",
        reads=(topics.RECHECKS,),
        writes=(topics.CHANGES, topics.RECHECKS, topics.INTEGRATION_STATUS),
        port="PropertySource",
        group=READERS,
        coalesce=True,
        max_in_flight=64,
        max_in_flight_per_integration=1,
        background=True,
    ),
    Flow(
        "maintain_rent_roll",
        Kind.FOLD,
        "folds snapshots into the rent roll",
        reads=(topics.CHANGES,),
        writes=(topics.LINGERING, topics.DUE, topics.WEBHOOKS, topics.RECHECKS, topics.INTEGRATION_STATUS),
        table=RENT_ROLL,
    ),
    Flow(
        "linger",
        Kind.REDELIVER,
        "lets the changes of a property gather",
        reads=(topics.LINGERING,),
        writes=(topics.DUE,),
        group="linger",
    ),
    Flow(
        "mark_date_changes",
        Kind.SCAN,
        "marks, after local midnight, the units that a passing date changes",
        writes=(topics.DUE,),
        views=(DELIVERIES,),
        every=60.0,
    ),
    Flow(
        "reconcile_receivers",
        Kind.SCAN,
        "marks the properties whose delivery state belongs to another configuration of the receiver",
        writes=(topics.DUE,),
        views=(RENT_ROLL, DELIVERIES),
        every=0.5,
    ),
    Flow(
        "schedule_snapshots",
        Kind.SCAN,
        "asks at the moments of a receiver's schedule for a snapshot of each of its properties",
        writes=(topics.DUE,),
        views=(DELIVERIES,),
        every=1.0,
    ),
    Flow(
        "emit_batches",
        Kind.FOLD,
        "cuts a batch of what a receiver does not know yet",
        reads=(topics.DUE, topics.OUTCOMES),
        writes=(topics.BATCHES,),
        table=DELIVERIES,
        views=(RENT_ROLL,),
        batch_size=10,
    ),
    Flow(
        "watch_deliveries",
        Kind.SCAN,
        "measures the oldest change that a receiver has not acknowledged; brings back what was given up or lost",
        writes=(topics.DUE,),
        views=(DELIVERIES, RENT_ROLL),
        every=15.0,
    ),
    Flow(
        "watch_accounts",
        Kind.SCAN,
        "counts doubtful data of the PMS and removals that wait, for people",
        views=(DELIVERIES, RENT_ROLL),
        every=30.0,
    ),
    Flow(
        "deliver_batches",
        Kind.CALL,
        "POSTs a batch to its receiver",
        reads=(topics.BATCHES,),
        writes=(topics.OUTCOMES, topics.INTEGRATION_STATUS),
        port="ListingSink",
        group="deliver",
        retries=True,
        returns_to=topics.DUE,
        coalesce=True,
        max_in_flight=128,
        max_in_flight_per_integration=16,
    ),
    Flow(
        "plan_replays",
        Kind.INGRESS,
        "stores plans of replays and the orders of people about them",
        writes=(topics.REPLAY_STATES,),
        port="Replays",
    ),
    Flow(
        "follow_replays",
        Kind.GLOBAL,
        "keeps the plans, orders and progress of all replays in the memory of web roles and workers",
        reads=(topics.REPLAY_STATES,),
    ),
    Flow(
        "watch_replays",
        Kind.SCAN,
        "begins replays that were approved, and goes on with those that no record would go on with",
        writes=(topics.REPLAY_STEPS,),
        every=1.0,
    ),
    Flow(
        "replay_records",
        Kind.CALL,
        "has the next records of an approved plan processed again",
        reads=(topics.REPLAY_STEPS,),
        writes=(
            topics.COMMANDS,
            topics.SYNC_EVENTS,
            topics.WEBHOOKS,
            topics.CHANGES,
            topics.DUE,
            topics.OUTCOMES,
            topics.REPLAY_STATES,
            topics.REPLAY_STEPS,
        ),
        port="Backend",
        group=READERS,
        max_in_flight=32,
        max_in_flight_per_integration=1,
        background=True,
    ),
)
"""Every flow but the redelivery of the rungs, which follows from the ladder (`redeliveries`)."""


def redeliveries(delays: tuple[str, ...]) -> tuple[Flow, ...]:
    """Return the flow that brings each rung's records back to the topics that decide again."""
    return tuple(
        Flow(
            f"redeliver_{delay}",
            Kind.REDELIVER,
            f"brings back what waited {delay}",
            reads=(topics.rung(delay),),
            writes=returns(),
            group=f"redeliver.{delay}",
        )
        for delay in delays
    )


def returns() -> tuple[TopicSpec, ...]:
    """Return the topics to which parked records come back, in the order of the flows."""
    found = (one.returns_to or one.reads[0] for one in FLOWS if one.retries)
    return tuple(dict.fromkeys(found))


def flow(name: str) -> Flow:
    """Return a flow by its name."""
    return next(one for one in FLOWS if one.name == name)


def of_kind(kind: Kind) -> tuple[Flow, ...]:
    """Return the flows of a kind, in the order of `FLOWS`."""
    return tuple(one for one in FLOWS if one.kind is kind)


def tables() -> tuple[str, ...]:
    """Return the name of every table."""
    return tuple(one.table for one in FLOWS if one.table)


def all_topics(delays: tuple[str, ...]) -> Iterator[TopicSpec]:
    """Return every topic that must exist, changelogs included, without the prefix."""
    yield from topics.TOPICS
    yield from (topics.rung(delay) for delay in delays)
    yield from (topics.changelog(APP, table) for table in tables())


def groups(delays: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the topics of every consumer group whose lag is watched, both without the prefix."""
    found: dict[str, list[str]] = {}
    for one in (*FLOWS, *redeliveries(delays)):
        group = APP if one.kind is Kind.FOLD else one.group
        if group:
            found.setdefault(group, []).extend(topic.name for topic in one.reads)
    return {group: tuple(names) for group, names in found.items()}


def markdown(delays: tuple[str, ...]) -> str:
    """Return the text of ``docs/topology.md``."""
    flows = (*FLOWS, *redeliveries(delays))
    lines = [
        "# Topology",
        "",
        "Written by `make docs` from `streams/topology.py` and `schemas/topics.py`; edit those.",
        "",
        "```mermaid",
        "flowchart LR",
    ]
    for one in flows:
        shape = {
            Kind.FOLD: "[[{}]]",
            Kind.CALL: "([{}])",
            Kind.REDELIVER: "{{{{{}}}}}",
            Kind.SCAN: "[/{}/]",
            Kind.GLOBAL: "[({})]",
        }.get(one.kind, ">{}]")
        lines.append(f"  {_id(one.name)}{shape.format(one.name)}")
        lines += [f"  {_id(topic.name)}({topic.name}) --> {_id(one.name)}" for topic in one.reads]
        lines += [f"  {_id(one.name)} --> {_id(topic.name)}({topic.name})" for topic in one.writes]
        if one.table:
            lines.append(f"  {_id(one.name)} === {_id('table ' + one.table)}[({one.table})]")
        lines += [f"  {_id('table ' + table)}[({table})] -.-> {_id(one.name)}" for table in one.views]
    lines += [
        "```",
        "",
        "## Flows",
        "",
        "| flow | kind | description | reads | table | writes |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        "| "
        + " | ".join(
            (f"`{one.name}`", one.kind, one.description, _names(one.reads), one.table or "", _names(one.writes))
        )
        + " |"
        for one in flows
    ]
    lines += [
        "",
        "A fold, a call or a redeliver also writes to `dead-letters`; a call also to the rungs.",
        "",
        "## Topics",
        "",
        "Every topic has the same number of partitions; a record is on the partition of its org.",
        "",
        "| topic | description | cleanup | kept |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{one.name}` | {one.description} | {one.cleanup} | {kept(one)} |" for one in all_topics(delays)]
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _names(specs: tuple[TopicSpec, ...]) -> str:
    return ", ".join(f"`{one.name}`" for one in specs)


def kept(spec: TopicSpec) -> str:
    """Return how long a topic keeps its records, for people."""
    return "forever" if spec.retention_ms is None else f"{spec.retention_ms // topics.DAY_MS} days"
