"""A partition goes to a worker that has standby rows of it."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor.partition_assignor import PartitionAssignor
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.assignor import Assignor, Share, place

PARTITIONS = 12
TOPICS = {"events", "app-counts-changelog"}


class Cluster:
    """The metadata of a cluster with these topics."""

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return set(range(PARTITIONS))


def assignor(worker: str) -> Assignor:
    tables = SimpleNamespace(changelog_topics={"app-counts-changelog"}, data={})
    return Assignor(SimpleNamespace(tables=tables, conf=SimpleNamespace(canonical_url=f"http://{worker}")), replicas=1)


def balance(members: dict[str, Assignor]) -> dict[str, ConsumerProtocolMemberAssignment]:
    """Let the first member assign, and each take its part; return what their consumers get."""
    metadata: Any = {name: member.metadata(TOPICS) for name, member in members.items()}
    made: Any = next(iter(members.values()))._perform_assignment(Cluster(), metadata)
    for name, member in members.items():
        member.on_assignment(made[name])
    return dict(made)


def partitions(assignors: Iterable[Assignor], standby: bool = False) -> list[set[int]]:
    return [{tp.partition for tp in (one.standbys() if standby else one.assigned_actives())} for one in assignors]


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("lost", [0, 1])
def test_the_partitions_of_a_lost_worker_go_to_those_that_have_their_rows(workers: int, lost: int) -> None:
    members: dict[str, Assignor] = {}
    for n in range(workers):
        members[f"w{n}"] = assignor(f"w{n}")
        balance(members)
    before = dict(zip(members, partitions(members.values()), strict=True))
    rows = dict(zip(members, partitions(members.values(), standby=True), strict=True))

    del members[f"w{lost}"]
    balance(members)
    for name, member in members.items():
        (after,) = partitions([member])
        assert before[name] <= after
        assert after - before[name] <= rows[name]


@given(st.data())
def test_shares_are_even_and_complete_whatever_came_before(data: st.DataObject) -> None:
    """Also if members have the same partition, or some that do not exist."""
    count = data.draw(st.integers(1, 24), "partitions")
    some = st.frozensets(st.integers(0, 30))
    shares = st.builds(Share, some, some)
    before = data.draw(st.dictionaries(st.sampled_from("abcdefg"), shares, min_size=1), "before")
    standbys = data.draw(st.integers(0, 2), "standbys")

    placed = place(before, count, standbys)

    assert placed.keys() == before.keys()
    owned = [len(share.owned) for share in placed.values()]
    assert max(owned) - min(owned) <= 1
    assert sorted(one for share in placed.values() for one in share.owned) == list(range(count))
    kept = sorted(one for share in placed.values() for one in share.standby)
    assert kept == sorted(list(range(count)) * min(standbys, len(before) - 1))
    assert not any(share.owned & share.standby for share in placed.values())
    assert place(placed, count, standbys) == placed


def test_a_partition_moves_only_for_the_balance() -> None:
    before = {"a": Share(frozenset(range(8))), "b": Share(frozenset(range(8, 12))), "new": Share()}
    placed = place(before, 12, 1)

    assert placed["b"].owned == before["b"].owned
    assert placed["a"].owned < before["a"].owned
    assert len(placed["new"].owned) == 4


def test_a_worker_alone_has_everything_and_no_standby_rows() -> None:
    member = assignor("w0")
    balance({"w0": member})
    assert (partitions([member]), partitions([member], standby=True)) == ([set(range(PARTITIONS))], [set()])


def test_a_worker_with_the_assignor_of_faust_can_be_in_the_group() -> None:
    """During an upgrade, as a member or as the leader."""
    tables = SimpleNamespace(changelog_topics={"app-counts-changelog"}, data={})
    app = SimpleNamespace(tables=tables, conf=SimpleNamespace(canonical_url="http://old"))
    for names in (("new", "old"), ("old", "new")):
        members: dict[str, Any] = {"old": PartitionAssignor(app, replicas=0), "new": assignor("new")}
        ordered = {name: members[name] for name in names}
        balance(ordered)
        balance(ordered)
        assert [len(part) for part in partitions(members.values())] == [PARTITIONS // 2] * 2


def test_the_consumer_is_assigned_what_the_worker_owns_only() -> None:
    members = {"w0": assignor("w0"), "w1": assignor("w1")}
    for made in balance(members).values():
        assert {topic: len(found) for topic, found in made.assignment} == dict.fromkeys(TOPICS, PARTITIONS // 2)
    assert members["w0"].assigned_standbys() == set()
