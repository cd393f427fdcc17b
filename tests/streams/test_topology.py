"""The laws of the dataflow."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from schemas.base import EntityKind
from schemas.topics import TOPICS, TopicSpec
from streams import topology
from streams.core.rent_roll import STAGES
from streams.topology import APP, DELIVERIES, FLOWS, RENT_ROLL, Flow, Kind, all_topics, groups, redeliveries
from tests.streams.core.rent_roll.rolls import end, fold, lease, page, swept, unit

ROOT = Path(__file__).resolve().parents[2]
DELAYS = ("1m", "2m", "5m", "10m")
ALL = (*FLOWS, *redeliveries(DELAYS))
ALL_TOPICS = tuple(all_topics(DELAYS))
OF_KIND = {kind: tuple(one for one in ALL if one.kind is kind) for kind in Kind}

each_flow = pytest.mark.parametrize("flow", ALL, ids=lambda flow: flow.name)
each_topic = pytest.mark.parametrize("topic", ALL_TOPICS, ids=lambda topic: topic.name)


def readers(topic: TopicSpec) -> list[Flow]:
    return [flow for flow in ALL if topic in flow.reads]


def changelogs() -> set[str]:
    return {topics.changelog(APP, table).name for table in topology.tables()}


# ----------------------------------------------------------------------------------------------------------- tables


def test_a_table_has_one_writer_and_it_is_a_fold() -> None:
    writers = [flow for flow in ALL if flow.table]
    assert sorted(flow.table for flow in writers if flow.table) == sorted({*topology.tables()})
    assert {flow.kind for flow in writers} == {Kind.FOLD}
    assert set(topology.tables()) == {RENT_ROLL, DELIVERIES}


@each_flow
def test_a_flow_looks_at_tables_that_are_there_and_that_its_kind_may_see(flow: Flow) -> None:
    """A call and an ingress have none: they run outside the owner of the table's partition."""
    assert {*flow.views} <= {*topology.tables()}
    assert flow.table not in flow.views
    if flow.views:
        assert flow.kind in (Kind.FOLD, Kind.SCAN)


# ----------------------------------------------------------------------------------------------------------- topics


@each_topic
def test_a_topic_has_a_producer_and_a_consumer(topic: TopicSpec) -> None:
    """Or is the end of the line, or one of the two ways of waiting and remembering that follow from the flows."""
    said = {one.name for flow in ALL for one in flow.writes}
    waiting = {topics.rung(delay).name for delay in DELAYS}
    retried = any(flow.retries for flow in ALL)
    if topic.name in changelogs():
        return
    assert topic.name in said or (retried and topic.name in waiting | {topics.DEAD_LETTERS.name})
    assert bool(readers(topic)) is (topic is not topics.DEAD_LETTERS)


@each_topic
def test_a_topic_has_one_consumer(topic: TopicSpec) -> None:
    """So that one which is retried, too, comes back to the flow that parked it and to no other."""
    assert len(readers(topic)) == (0 if topic is topics.DEAD_LETTERS or topic.name in changelogs() else 1)


def test_what_waited_comes_back_to_where_it_is_decided_again() -> None:
    """Each flow that retries has its way back: its own topic, or the one where a delivery is cut anew."""
    for redelivers in redeliveries(DELAYS):
        for flow in (one for one in ALL if one.retries):
            back = topics.DUE if flow.name == "deliver_batches" else flow.reads[0]
            assert back in redelivers.writes
        assert {one.name for topic in redelivers.writes for one in readers(topic)} == {
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
def test_only_a_changelog_is_compacted_and_kept_for_ever(topic: TopicSpec) -> None:
    """Two records of one key on any other topic are two facts."""
    is_log = topic.name in changelogs()
    assert (topic.cleanup == "compact") is is_log
    assert (topic.retention_ms is None) is is_log


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
    }
    assert (bool(flow.reads), bool(flow.table), bool(flow.port), bool(flow.group)) == needs[flow.kind]
    assert not flow.retries or flow.kind is Kind.CALL


def test_every_call_climbs_the_ladder() -> None:
    assert all(flow.retries for flow in OF_KIND[Kind.CALL])


def test_a_flow_has_its_name_for_itself() -> None:
    names = [flow.name for flow in ALL]
    assert len(set(names)) == len(names)
    for flow in FLOWS:
        assert topology.flow(flow.name) is flow


def test_one_group_owns_all_the_reading_of_an_account() -> None:
    """Its budget of calls has one owner; the folds are one group too, and a waiting topic stops nobody else."""
    found = groups(DELAYS)
    assert found[topology.READERS] == ("pms.webhooks", "pms.sweeps")
    assert found[APP] == ("rent-roll.changes", "deliveries.due", "deliveries.outcomes")
    ports = {flow.port: {one.group for one in OF_KIND[Kind.CALL] if one.port == flow.port} for flow in ALL if flow.port}
    assert all(len(owners) <= 1 for owners in ports.values())
    assert {name: found[f"redeliver.{name}"] for name in DELAYS} == {name: (f"retry.{name}",) for name in DELAYS}
    assert sorted(name for names in found.values() for name in names) == sorted(
        topic.name for topic in ALL_TOPICS if readers(topic)
    )


def test_the_ladder_may_be_any() -> None:
    """Its flows, topics and groups follow from the setting."""
    assert [flow.name for flow in redeliveries(("3s",))] == ["redeliver_3s"]
    assert "retry.3s" in {topic.name for topic in all_topics(("3s",))}
    assert groups(("3s",))["redeliver.3s"] == ("retry.3s",)


# -------------------------------------------------------------------------------------- what the code really does

IN_FLOWS = tuple(flow for flow in FLOWS if flow.kind in (Kind.FOLD, Kind.CALL, Kind.SCAN))
SAYS_IN: dict[str, tuple[str, ...]] = {
    "maintain_rent_roll": (
        "streams/core/rent_roll/pages.py",
        "streams/core/rent_roll/completeness.py",
        "streams/core/rent_roll/refetch.py",
    ),
    "emit_batches": ("streams/core/delivery/machine.py",),
    "sweep_accounts": ("streams/flows/fetch_changes.py",),
}
"""Where a flow's effects are made, beside its own file."""


def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def attributes(path: str, of: str) -> Iterator[str]:
    """Every ``of.NAME`` in a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == of:
            yield node.attr


def test_every_fold_call_and_scan_is_a_file() -> None:
    """Of its own name, and no file is a flow that the topology does not know."""
    files = {path.stem for path in (ROOT / "streams" / "flows").glob("*.py")} - {"__init__"}
    assert files == {flow.name for flow in IN_FLOWS}


@pytest.mark.parametrize("flow", IN_FLOWS, ids=lambda flow: flow.name)
def test_the_topics_that_a_flow_names_are_those_that_it_declares(flow: Flow) -> None:
    """A delivery that waits comes back to where it is cut: that is said by the rung."""
    paths = (f"streams/flows/{flow.name}.py", *SAYS_IN.get(flow.name, ()))
    named = {vars(topics)[name] for path in paths for name in attributes(path, "topics") if name.isupper()}
    if flow.name == "deliver_batches":
        named.remove(topics.DUE)
    assert named == {*flow.writes}


@pytest.mark.parametrize("flow", IN_FLOWS, ids=lambda flow: flow.name)
def test_the_tables_that_a_flow_reads_are_those_that_it_declares(flow: Flow) -> None:
    tables = {"RENT_ROLL": RENT_ROLL, "DELIVERIES": DELIVERIES}
    seen = {
        tables[node.slice.id]
        for node in ast.walk(tree(f"streams/flows/{flow.name}.py"))
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name) and node.slice.id in tables
    }
    assert seen == {*flow.views}


def test_no_name_of_a_topic_is_written_outside_the_catalogue() -> None:
    """A literal would not move with it."""
    names = {topic.name for topic in TOPICS}
    for folder in ("streams", "connectors", "schemas"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == ROOT / "schemas" / "topics.py":
                continue
            literals = {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            }
            assert not names & literals, path


def test_the_rent_roll_says_only_what_it_declares() -> None:
    """And all of it: a story of an account, from the first sweep to a removal."""
    view = swept()
    applied = fold(
        view,
        page(EntityKind.UNIT, 10, unit(rent=1), unit(5, property_id=77)),
        page(EntityKind.LEASE, 11, lease(unit_id=9)),
        *(page(stage, 20 + at, sweep="s2") for at, stage in enumerate(STAGES)),
        end(1, 1, 1, 1, sweep="s2", seq=19),
    )
    said = {emit.topic.name for one in applied for emit in one.emits}
    first = fold(swept(), end(1, 1, 1, 1))
    said |= {emit.topic.name for one in first for emit in one.emits}
    assert said == {topic.name for topic in topology.flow("maintain_rent_roll").writes}


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
