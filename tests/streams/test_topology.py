"""The laws of the dataflow."""

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode
from schemas.commands import SyncEntity, SyncState, SyncStatus
from schemas.integrations import CheckReport, SyncProgress, SyncResult
from schemas.replay import ReplayOrder, ReplayPlan, ReplayProgress, ReplayWish
from schemas.topics import TOPICS, TopicSpec
from streams import topology, wiring
from streams.core.rent_roll import STAGES
from streams.directory import directory
from streams.directory.directory import CHECK, PROGRESS, RESULT, key_of, status_key
from streams.topology import (
    APP,
    DELIVERIES,
    FLOWS,
    RENT_ROLL,
    SYNC_STATES,
    Flow,
    Kind,
    all_topics,
    groups,
    redeliveries,
)
from tests.streams.core.rent_roll.rolls import end, fold, lease, page, swept, unit
from tests.streams.directory.stage import Stage, pms_body

ROOT = Path(__file__).resolve().parents[2]
DELAYS = ("1m", "2m", "5m", "10m")
ALL = (*FLOWS, *redeliveries(DELAYS))
ALL_TOPICS = tuple(all_topics(DELAYS))
OF_KIND = {kind: tuple(one for one in ALL if one.kind is kind) for kind in Kind}

each_flow = pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.name)
each_topic = pytest.mark.parametrize("topic", ALL_TOPICS, ids=lambda topic: topic.name)


def readers(topic: TopicSpec) -> list[Flow]:
    return [flow for flow in ALL if topic in flow.reads]


def consumers(topic: TopicSpec) -> list[Flow]:
    """Return those that process a topic; a global flow only remembers what is on it."""
    return [flow for flow in readers(topic) if flow.kind is not Kind.GLOBAL]


def changelogs() -> set[str]:
    return {topics.changelog(APP, table).name for table in topology.tables()}


# ----------------------------------------------------------------------------------------------------------- tables


def test_a_table_has_one_writer_and_it_is_a_fold() -> None:
    writers = [flow for flow in ALL if flow.table]
    assert sorted(flow.table for flow in writers if flow.table) == sorted({*topology.tables()})
    assert {flow.kind for flow in writers} == {Kind.FOLD}
    assert set(topology.tables()) == {RENT_ROLL, DELIVERIES, SYNC_STATES}


@each_flow
def test_a_flow_looks_at_tables_that_are_there_and_that_its_kind_may_see(flow: Flow) -> None:
    """A call and an ingress have none: they run outside the owner of the table's partition."""
    assert {*flow.views} <= {*topology.tables()}
    assert flow.table not in flow.views
    if flow.views:
        assert flow.kind in (Kind.FOLD, Kind.SCAN)


# ----------------------------------------------------------------------------------------------------------- topics


NEVER_READ = (topics.DEAD_LETTERS, topics.INTEGRATION_HISTORY)
"""What people read: records that were given up, and the audit trail."""


@each_topic
def test_a_topic_has_a_producer_and_a_consumer(topic: TopicSpec) -> None:
    """Unless people read it, or the engine does: a changelog."""
    written = {one.name for flow in ALL for one in flow.writes}
    waiting = {topics.rung(delay).name for delay in DELAYS}
    retried = any(flow.retries for flow in ALL)
    if topic.name in changelogs():
        return
    assert topic.name in written or (retried and topic.name in waiting | {topics.DEAD_LETTERS.name})
    assert bool(readers(topic)) is (topic not in NEVER_READ)


@each_topic
def test_a_topic_has_one_consumer(topic: TopicSpec) -> None:
    """So that one which is retried, too, comes back to the flow that parked it and to no other."""
    unread = topic in NEVER_READ or topic.name in changelogs()
    assert len(consumers(topic) or readers(topic)) == (0 if unread else 1)


def test_what_waited_comes_back_to_where_it_is_decided_again() -> None:
    """Each flow that retries has its way back: its own topic, or the one where a delivery is cut anew."""
    for redelivers in redeliveries(DELAYS):
        for flow in (one for one in ALL if one.retries):
            assert (flow.returns_to or flow.reads[0]) in redelivers.writes
        assert {one.name for topic in redelivers.writes for one in consumers(topic)} == {
            "track_syncs",
            "fetch_changes",
            "sweep_accounts",
            "emit_batches",
        }


@each_flow
def test_a_flow_names_topics_of_the_catalogue_only(flow: Flow) -> None:
    catalogue = {*TOPICS, *(topics.rung(delay) for delay in DELAYS)}
    assert {*flow.reads, *flow.writes} <= catalogue


def test_every_topic_of_the_catalogue_is_made() -> None:
    """Once, with its rungs and changelogs."""
    names = [topic.name for topic in ALL_TOPICS]
    assert len(set(names)) == len(names)
    assert {topic.name for topic in TOPICS} < set(names)
    declared = [value for value in vars(topics).values() if isinstance(value, TopicSpec)]
    assert sorted(one.name for one in declared) == sorted(one.name for one in TOPICS)
    assert set(names) - {topic.name for topic in TOPICS} == changelogs() | {f"retry.{delay}" for delay in DELAYS}


@each_topic
def test_a_topic_is_named_by_the_rule(topic: TopicSpec) -> None:
    """Area and noun in lower case; a rung by its delay; a changelog by its table, as Faust names it."""
    if topic.name in changelogs():
        assert re.fullmatch(rf"{APP}-[a-z]+(-[a-z]+)*-changelog", topic.name)
    else:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*(\.[a-z]+)?|retry\.\d+(ms|s|m|h)", topic.name)
    assert topic.description
    assert not topic.description.endswith(".")


@each_topic
def test_what_is_compacted_is_a_state_and_kept_for_ever(topic: TopicSpec) -> None:
    """A changelog, or what a global flow keeps in memory; two records of one key on any other topic are two facts."""
    state = topic.name in changelogs() or (bool(readers(topic)) and not consumers(topic))
    assert (topic.cleanup == "compact") is state
    assert (topic.retention_ms is None) is state


COUNTS = ("matched", "replayed", "superseded", "exhausted", "unsuitable")


def test_the_key_of_a_compacted_topic_names_what_its_record_is_about() -> None:
    """Compaction keeps one record of each integration, and one of each kind of its status; a fact has its org."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    facts: dict[str, Any] = {"org": "o", "name": "n", "started_at": now, "sweep": "s"}
    progress = SyncProgress(**facts, at=now, stage=EntityKind.UNIT, number=1, stages=4)
    result = SyncResult(**facts, ended_at=now, entities=1, first_sweep="s")
    report = CheckReport(org="o", name="n", version=1, at=now, passed=True, checks=())
    counts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    plan = ReplayPlan(org="o", id="r", at=now, by="b", source="t", rate=1, **counts)
    order = ReplayOrder(org="o", id="r", wish=ReplayWish.RUN, at=now, by="b")
    replayed = ReplayProgress(org="o", id="r", at=now, began_at=now, position=0)
    of_integrations = (topics.INTEGRATIONS, topics.INTEGRATION_STATUS, topics.INTEGRATION_HISTORY)
    audited = (*of_integrations, topics.SYNC_STATES, topics.REPLAY_STATES)
    synced = SyncState(
        org="o", connection="c", entity=SyncEntity.OWNER, id="7", status=SyncStatus.SYNCED, updated_at=now
    )

    assert {topics.INTEGRATION_STATUS.key_of(one) for one in (progress, result, report)} == {
        status_key("o", "n", kind) for kind in (PROGRESS, RESULT, CHECK)
    }
    assert topics.INTEGRATIONS.key_of(report) == key_of("o", "n")
    assert topics.SYNC_STATES.key_of(synced) == b"o/owner/7"
    assert {topics.REPLAY_STATES.key_of(one) for one in (plan, order, replayed)} == {
        b"o/r/plan", b"o/r/order", b"o/r/progress",
    }  # fmt: skip
    assert {one.key_of(report) for one in TOPICS if one not in audited} == {b"o"}


def test_a_record_outlives_the_longest_wait() -> None:
    """A rung of the longest delay that the setting takes keeps its records until they are due."""
    assert (topics.rung("24h").retention_ms or 0) >= 3 * 24 * topics.HOUR_MS


# ------------------------------------------------------------------------------------------------------------ flows


@each_flow
def test_a_flow_is_whole(flow: Flow) -> None:
    """A name that is a verb and an object, a sentence, and what its kind needs."""
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)*", flow.name)
    assert flow.description
    needs = {
        # reads, table, port, group
        Kind.INGRESS: (False, False, True, False),
        Kind.FOLD: (True, True, False, False),
        Kind.CALL: (True, False, True, True),
        Kind.REDELIVER: (True, False, False, True),
        Kind.SCAN: (False, False, False, False),
        Kind.GLOBAL: (True, False, False, False),
    }
    has = (bool(flow.reads), bool(flow.table), bool(flow.port), bool(flow.group))
    # Who sends a command is known by its token: no connector verifies it.
    assert has == ((False,) * 4 if flow.name == "receive_commands" else needs[flow.kind])
    assert not flow.retries or flow.kind is Kind.CALL


def test_every_call_climbs_the_ladder_or_is_soon_made_again() -> None:
    """A pulse goes on from the last one, each sweep asks for what is missing, and a scan for the step of a replay."""
    assert {flow.name for flow in OF_KIND[Kind.CALL] if not flow.retries} == {
        "pulse_accounts",
        "recheck_missed",
        "replay_records",
    }


@each_flow
def test_a_flow_has_the_columns_of_its_kind(flow: Flow) -> None:
    """How much is in flight is a matter of calls, how often one looks of scans, the size of a batch of folds."""
    calls = flow.kind is Kind.CALL
    assert (flow.max_in_flight > 0) is calls
    assert (flow.max_in_flight_per_integration > 0) is calls
    assert flow.max_in_flight_per_integration <= flow.max_in_flight
    assert calls or not (flow.coalesce or flow.background)
    assert (flow.every > 0) is (flow.kind is Kind.SCAN)
    assert flow.batch_size is None or (flow.kind is Kind.FOLD and flow.batch_size > 0)
    assert flow.returns_to is None or (flow.retries and flow.returns_to not in flow.reads)


@pytest.mark.parametrize("flow", OF_KIND[Kind.GLOBAL], ids=lambda flow: flow.name)
def test_a_global_flow_reads_states_and_changes_nothing(flow: Flow) -> None:
    """Every process reads all of it, so there is no group, and nothing that only one of them may do.

    Commands are no states: those of the last days are remembered, for their idempotency keys.
    """
    assert all(topic.cleanup == "compact" for topic in flow.reads if topic is not topics.COMMANDS)
    assert (flow.group, flow.writes, flow.views, flow.table, flow.port) == (None, (), (), None, None)
    watched = {name for names in groups(DELAYS).values() for name in names}
    assert {topic.name for topic in flow.reads} & watched <= {topics.COMMANDS.name}


def test_the_directory_is_made_from_what_the_global_flow_reads() -> None:
    flow = topology.flow("follow_integrations")
    assert tuple(topic.name for topic in flow.reads) == directory.TOPICS


@pytest.mark.parametrize("role", ["worker", "web", "manage"])
def test_every_role_follows_the_integrations(role: str) -> None:
    """It takes them from `streams.roles.integrations`, and runs the follower that comes with them."""
    names = {node.id for node in ast.walk(tree(f"streams/roles/{role}.py")) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree(f"streams/roles/{role}.py")) if isinstance(node, ast.Attribute)}
    assert "known" in names
    assert {"follower", "caught_up"} <= attributes


def test_a_flow_has_its_name_for_itself() -> None:
    names = [flow.name for flow in ALL]
    assert len(set(names)) == len(names)
    for flow in FLOWS:
        assert topology.flow(flow.name) is flow


def test_one_group_owns_all_the_reading_of_an_account() -> None:
    """Its budget of calls has one owner; the folds are one group too, and a waiting topic stops nobody else."""
    found = groups(DELAYS)
    assert found[topology.READERS] == (
        "pms.pushes", "pms.webhooks", "pms.pulses", "pms.sweeps", "pms.rechecks", "replays.steps",
    )  # fmt: skip
    assert found[APP] == ("pms.commands", "sync.events", "rent-roll.changes", "deliveries.due", "deliveries.outcomes")
    ports = {flow.port: {one.group for one in OF_KIND[Kind.CALL] if one.port == flow.port} for flow in ALL if flow.port}
    assert all(len(owners) <= 1 for owners in ports.values())
    assert {name: found[f"redeliver.{name}"] for name in DELAYS} == {name: (f"retry.{name}",) for name in DELAYS}
    assert sorted(name for names in found.values() for name in names) == sorted(
        topic.name for topic in ALL_TOPICS if any(flow.kind is not Kind.GLOBAL for flow in readers(topic))
    )


def test_the_ladder_may_be_any() -> None:
    """Its flows, topics and groups follow from the setting."""
    assert [flow.name for flow in redeliveries(("3s",))] == ["redeliver_3s"]
    assert "retry.3s" in {topic.name for topic in all_topics(("3s",))}
    assert groups(("3s",))["redeliver.3s"] == ("retry.3s",)


# -------------------------------------------------------------------------------------- what the code really does

IN_FLOWS = tuple(flow for flow in FLOWS if flow.kind in (Kind.FOLD, Kind.CALL, Kind.SCAN))
WRITES_IN: dict[str, tuple[str, ...]] = {
    "track_syncs": ("streams/core/sync/machine.py",),
    "maintain_rent_roll": (
        "streams/core/rent_roll/pages.py",
        "streams/core/rent_roll/completeness.py",
        "streams/core/rent_roll/refetch.py",
    ),
    "emit_batches": ("streams/core/delivery/machine.py",),
    "sweep_accounts": ("streams/flows/fetch_changes.py",),
    "recheck_missed": ("streams/flows/fetch_changes.py",),
    "pulse_accounts": ("streams/core/rent_roll/refetch.py",),
    "replay_records": ("streams/core/replays.py",),
}
"""Where a flow's effects are made, beside its own file, and of every call the breaker, which reports its holds."""


def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def attributes(path: str, of: str) -> Iterator[str]:
    """Every ``of.NAME`` in a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of:
            yield node.attr


SHARED = {"integrations"}
"""Files in ``streams/flows`` that several flows use."""


def test_every_fold_call_and_scan_is_a_file() -> None:
    """Of its own name, and no file is a flow that the topology does not know."""
    files = {path.stem for path in (ROOT / "streams" / "flows").glob("*.py")} - {"__init__"}
    assert files == {flow.name for flow in IN_FLOWS} | SHARED
    for name in SHARED:
        assert not set(attributes(f"streams/flows/{name}.py", "topics"))


def test_the_wiring_has_exactly_one_entry_for_each_flow() -> None:
    wired = ast.parse((ROOT / "streams" / "wiring.py").read_text(encoding="utf-8"))
    tables = [node for node in ast.walk(wired) if isinstance(node, ast.Dict) and len(node.keys) > 1]
    written = [key.value for table in tables for key in table.keys if isinstance(key, ast.Constant)]

    assert sorted(map(str, written)) == sorted(flow.name for flow in IN_FLOWS)
    assert list(wiring.FOLDS) == [flow.name for flow in OF_KIND[Kind.FOLD]]
    assert list(wiring.SCANS) == [flow.name for flow in OF_KIND[Kind.SCAN]]


@pytest.mark.parametrize("flow", IN_FLOWS, ids=lambda flow: flow.name)
def test_the_topics_that_a_flow_names_are_those_that_it_declares(flow: Flow) -> None:
    """A delivery that waits comes back to where it is cut: the rung writes that."""
    reports = flow.kind is Kind.CALL and topics.INTEGRATION_STATUS in flow.writes
    calls = ("streams/core/breaker.py",) if reports else ()
    paths = (f"streams/flows/{flow.name}.py", *WRITES_IN.get(flow.name, ()), *calls)
    named = {vars(topics)[name] for path in paths for name in attributes(path, "topics") if name.isupper()}
    if flow.returns_to:
        named.remove(flow.returns_to)
    assert named == {*flow.writes}


async def test_what_the_service_of_integrations_writes_is_what_its_flow_declares() -> None:
    """A record, its history, what a test found, requests to read, and the deletion of all of it."""
    stage = Stage()
    async with stage.process() as process:
        await process.service.put("acme", "main", pms_body(), "a test")
        await process.service.check("acme", "main")
        await process.service.enable("acme", "main", "a test")
        await process.service.sweep("acme", "main")
        await process.service.refresh_property("acme", "main", 10)
        await process.service.delete("acme", "main", "a test")
    named = {vars(topics)[name] for name in attributes("streams/directory/service.py", "topics")}
    written = {topic: stage.broker.read(topic.name) for topic in topics.TOPICS if stage.broker.read(topic.name)}
    flow = topology.flow("manage_integrations")

    assert named == set(written) == {*flow.writes}
    for topic, found in written.items():
        assert all(one.key == topic.key_of(decode(one.value)) for one in found if one.value is not None)


@pytest.mark.parametrize("flow", IN_FLOWS, ids=lambda flow: flow.name)
def test_the_tables_that_a_flow_reads_are_those_that_it_declares(flow: Flow) -> None:
    tables = {"RENT_ROLL": RENT_ROLL, "DELIVERIES": DELIVERIES, "SYNC_STATES": SYNC_STATES}
    seen = {
        tables[node.slice.id]
        for node in ast.walk(tree(f"streams/flows/{flow.name}.py"))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name) and node.slice.id in tables
    }
    assert seen == {*flow.views}


def test_no_name_of_a_topic_is_written_outside_the_catalogue() -> None:
    """A literal would not move with it. One that is a plain word has other meanings where no topic is named."""
    names = {topic.name for topic in TOPICS}
    plain = {name for name in names if name.isalpha()}
    for folder in ("streams", "connectors", "schemas"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == ROOT / "schemas" / "topics.py":
                continue
            module = ast.parse(path.read_text(encoding="utf-8"))
            literals = {
                node.value
                for node in ast.walk(module)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            knows_topics = any(isinstance(node, ast.Name) and node.id == "topics" for node in ast.walk(module))
            assert not literals & (names if knows_topics else names - plain), path


def test_the_rent_roll_writes_only_what_it_declares() -> None:
    """And all of it: a story of an account, from the first sweep to a removal."""
    view = swept()
    applied = fold(
        view,
        page(EntityKind.UNIT, 10, unit(rent=1), unit(5, property_id=77)),
        page(EntityKind.LEASE, 11, lease(unit_id=9)),
        *(page(stage, 20 + at, sweep="s2") for at, stage in enumerate(STAGES)),
        end(1, 1, 1, 1, sweep="s2", seq=19),
    )
    written = {emit.topic.name for one in applied for emit in one.emits}
    first = fold(swept(), end(1, 1, 1, 1))
    written |= {emit.topic.name for one in first for emit in one.emits}
    assert written == {topic.name for topic in topology.flow("maintain_rent_roll").writes}


# -------------------------------------------------------------------------------------------------------- the page


def test_the_page_of_the_topology_is_current() -> None:
    """``make docs`` was run after the last change."""
    assert (ROOT / "docs" / "topology.md").read_text(encoding="utf-8") == topology.markdown(DELAYS)


def test_the_page_shows_every_flow_topic_and_table() -> None:
    page_of = topology.markdown(DELAYS)
    for name in (*(flow.name for flow in ALL), *(topic.name for topic in ALL_TOPICS)):
        assert f"| `{name}` |" in page_of
    for table in topology.tables():
        assert f"[({table})]" in page_of
