"""THE DATAFLOW: which flow reads what, writes which table, and says what. It reads like a table of contents.

The shells, the topics, the metrics' labels and ``docs/topology.md`` all follow from this; its laws are tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from schemas import topics
from schemas.topics import TopicSpec

APP = "streams"
"""Consumer group (with the prefix) of the folds, which are one Faust app."""


class Kind(StrEnum):
    """The four kinds of flow, and the edge through which the world comes in."""

    INGRESS = "ingress"
    FOLD = "fold"
    CALL = "call"
    REDELIVER = "redeliver"
    SCAN = "scan"


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow. Its name is the agent, the metrics' label, the log field and the file in ``streams/flows``."""

    name: str
    kind: Kind
    does: str
    reads: tuple[TopicSpec, ...] = ()
    says: tuple[TopicSpec, ...] = ()
    table: str | None = None
    """The table that it writes; a table has one writer."""
    views: tuple[str, ...] = ()
    """Tables of the same org that it reads."""
    port: str | None = None
    group: str | None = None
    """Consumer group (without prefix) of a call or a redeliver; flows of one group share its owner of an org."""
    batch_size: int | None = None
    """Of a fold: records of one batch, where a record may mean much work (a cut of a whole property)."""
    retries: bool = False
    """Whether its records climb the ladder; a topic that is retried has one consumer."""


RENT_ROLL, DELIVERIES = "rent-roll", "deliveries"
READERS = "readers"

FLOWS: tuple[Flow, ...] = (
    Flow(
        "receive_webhooks",
        Kind.INGRESS,
        "verifies a PMS's webhook and answers once it is durable",
        says=(topics.WEBHOOKS,),
        port="WebhookReader",
    ),
    Flow(
        "schedule_sweeps",
        Kind.SCAN,
        "says when an account is to be read whole",
        says=(topics.SWEEPS,),
        views=(RENT_ROLL,),
    ),
    Flow(
        "fetch_changes",
        Kind.CALL,
        "reads what a notice names, as it is now",
        reads=(topics.WEBHOOKS,),
        says=(topics.CHANGES,),
        port="PropertySource",
        group=READERS,
        retries=True,
    ),
    Flow(
        "sweep_accounts",
        Kind.CALL,
        "reads an account whole, some pages at a time",
        reads=(topics.SWEEPS,),
        says=(topics.CHANGES, topics.SWEEPS),
        port="PropertySource",
        group=READERS,
        retries=True,
    ),
    Flow(
        "maintain_rent_roll",
        Kind.FOLD,
        "folds snapshots into the rent roll",
        reads=(topics.CHANGES,),
        says=(topics.LINGERING, topics.DUE, topics.WEBHOOKS),
        table=RENT_ROLL,
    ),
    Flow(
        "linger",
        Kind.REDELIVER,
        "lets the changes of a property gather",
        reads=(topics.LINGERING,),
        says=(topics.DUE,),
        group="linger",
    ),
    Flow(
        "mark_date_changes",
        Kind.SCAN,
        "says at local midnight which properties a passing date changes",
        says=(topics.DUE,),
        views=(RENT_ROLL,),
    ),
    Flow(
        "emit_batches",
        Kind.FOLD,
        "cuts a batch of what a receiver does not know yet",
        reads=(topics.DUE, topics.OUTCOMES),
        says=(topics.BATCHES,),
        table=DELIVERIES,
        views=(RENT_ROLL,),
        batch_size=10,
    ),
    Flow(
        "watch_deliveries",
        Kind.SCAN,
        "measures the oldest change that a receiver has not acknowledged",
        views=(DELIVERIES,),
    ),
    Flow(
        "deliver_batches",
        Kind.CALL,
        "POSTs a batch to its receiver",
        reads=(topics.BATCHES,),
        says=(topics.OUTCOMES,),
        port="ListingSink",
        group="deliver",
        retries=True,
    ),
)
"""Every flow but the redelivery of the rungs, which follows from the ladder (`redeliveries`)."""


def redeliveries(delays: tuple[str, ...]) -> tuple[Flow, ...]:
    """Make the flow that brings each rung's records back to the topics that decide again."""
    origins = (topics.WEBHOOKS, topics.SWEEPS, topics.DUE)
    return tuple(
        Flow(
            f"redeliver_{delay}",
            Kind.REDELIVER,
            f"brings back what waited {delay}",
            reads=(topics.rung(delay),),
            says=origins,
            group=f"redeliver.{delay}",
        )
        for delay in delays
    )


def flow(name: str) -> Flow:
    """Give a flow by its name."""
    return next(one for one in FLOWS if one.name == name)


def tables() -> tuple[str, ...]:
    """Name every table."""
    return tuple(one.table for one in FLOWS if one.table)


def all_topics(delays: tuple[str, ...]) -> Iterator[TopicSpec]:
    """Give every topic that has to be there, changelogs included, without the prefix."""
    yield from topics.TOPICS
    yield from (topics.rung(delay) for delay in delays)
    yield from (topics.changelog(APP, table) for table in tables())


def groups(delays: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Give the topics of every consumer group, both without the prefix: whose lag is watched."""
    found: dict[str, list[str]] = {}
    for one in (*FLOWS, *redeliveries(delays)):
        group = APP if one.kind is Kind.FOLD else one.group
        if group:
            found.setdefault(group, []).extend(topic.name for topic in one.reads)
    return {group: tuple(names) for group, names in found.items()}


def markdown(delays: tuple[str, ...]) -> str:
    """Write ``docs/topology.md``."""
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
        shape = {Kind.FOLD: "[[{}]]", Kind.CALL: "([{}])", Kind.REDELIVER: "{{{{{}}}}}", Kind.SCAN: "[/{}/]"}.get(
            one.kind, ">{}]"
        )
        lines.append(f"  {_id(one.name)}{shape.format(one.name)}")
        lines += [f"  {_id(topic.name)}({topic.name}) --> {_id(one.name)}" for topic in one.reads]
        lines += [f"  {_id(one.name)} --> {_id(topic.name)}({topic.name})" for topic in one.says]
        if one.table:
            lines.append(f"  {_id(one.name)} === {_id('table ' + one.table)}[({one.table})]")
        lines += [f"  {_id('table ' + table)}[({table})] -.-> {_id(one.name)}" for table in one.views]
    lines += ["```", "", "## Flows", "", "| flow | kind | does | reads | table | says |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{one.name}` | {one.kind} | {one.does} | {_names(one.reads)} | {one.table or ''} | {_names(one.says)} |"
        for one in flows
    ]
    lines += [
        "",
        "A fold, a call or a redeliver also writes to `dead-letters`; a call also to the rungs.",
        "",
        "## Topics",
        "",
        "Every topic has the same number of partitions and the org as key.",
        "",
        "| topic | says | cleanup | kept |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{one.name}` | {one.says} | {one.cleanup} | {kept(one)} |" for one in all_topics(delays)]
    return "\n".join(lines) + "\n"


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _names(specs: tuple[TopicSpec, ...]) -> str:
    return ", ".join(f"`{one.name}`" for one in specs)


def kept(spec: TopicSpec) -> str:
    """Say how long a topic keeps its records."""
    return "for ever" if spec.retention_ms is None else f"{spec.retention_ms // topics.DAY_MS} days"
