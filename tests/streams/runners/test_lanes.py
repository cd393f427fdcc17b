"""Tests of the scheduler of a call: order within a key, priorities, quotas and fairness."""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.runners.lanes import Lanes, Quota


@dataclass(frozen=True)
class Entry:
    """An item of a lane."""

    number: int
    rank: int = 0
    joins: Hashable | None = None
    group: Hashable = None


def lanes_of(ranks: int, max_batch: int) -> Lanes[Entry]:
    """Return lanes with one quota for all ranks, which is never reached."""
    return Lanes([Quota(100)] * ranks, max_batch)


def test_a_busy_lane_blocks_only_its_own_items() -> None:
    lanes = lanes_of(1, 10)
    for number, key in enumerate("aab"):
        lanes.put(key, Entry(number))

    assert lanes.next() == ("a", [Entry(0)])
    assert lanes.next() == ("b", [Entry(2)])
    assert lanes.next() is None
    lanes.done("a")
    assert lanes.next() == ("a", [Entry(1)])


def test_higher_ranks_go_first_between_lanes_and_within_them() -> None:
    lanes = lanes_of(3, 10)
    lanes.put("a", Entry(0, 2))
    lanes.put("b", Entry(1, 1))
    lanes.put("a", Entry(2, 0))
    taken = []
    while found := lanes.next():
        taken += found[1]
        lanes.done(found[0])

    assert taken == [Entry(2, 0), Entry(1, 1), Entry(0, 2)]


def test_each_rank_of_a_quota_leaves_a_slot_to_higher_ranks() -> None:
    lanes: Lanes[Entry] = Lanes([Quota(2)] * 2, 10)
    for number, (key, rank) in enumerate((("a", 1), ("b", 1), ("c", 0), ("d", 0))):
        lanes.put(key, Entry(number, rank))

    assert [found[0] for found in iter(lanes.next, None)] == ["c", "d"]
    lanes.done("c")
    assert lanes.next() is None
    lanes.done("d")
    assert lanes.next() == ("a", [Entry(0, 1)])
    assert lanes.next() is None


def test_a_held_quota_begins_nothing_and_blocks_no_other() -> None:
    held, other = Quota(1), Quota(1)
    lanes: Lanes[Entry] = Lanes([held, other], 10)
    held.held = True
    lanes.put("a", Entry(0, 0))
    lanes.put("b", Entry(1, 1))

    assert lanes.next() == ("b", [Entry(1, 1)])
    assert lanes.next() is None
    held.held = False
    assert lanes.next() == ("a", [Entry(0, 0)])


def test_flows_have_separate_slots() -> None:
    lanes: Lanes[Entry] = Lanes([Quota(1), Quota(1)], 10)
    for number, (key, rank) in enumerate((("a", 0), ("b", 0), ("c", 1), ("d", 1))):
        lanes.put(key, Entry(number, rank))

    assert [found[0] for found in iter(lanes.next, None)] == ["a", "c"]


def test_groups_are_served_in_turn() -> None:
    lanes = lanes_of(1, 10)
    for number in range(4):
        lanes.put(f"a{number}", Entry(number, group="a"))
    for number in range(2):
        lanes.put(f"b{number}", Entry(number, group="b"))
    lanes.put("c0", Entry(0, group="c"))

    assert [found[0] for found in iter(lanes.next, None)] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_group_at_its_limit_waits_and_is_then_served_in_turn() -> None:
    lanes: Lanes[Entry] = Lanes([Quota(10, 2)], 10)
    for group in "ab":
        for number in range(4):
            lanes.put(f"{group}{number}", Entry(number, group=group))

    assert [found[0] for found in iter(lanes.next, None)] == ["a0", "b0", "a1", "b1"]
    lanes.put("a9", Entry(9, group="a"))
    assert lanes.next() is None
    lanes.done("a1")
    assert [found[0] for found in iter(lanes.next, None)] == ["a2"]
    lanes.drop(lambda one: one.group == "a")
    lanes.done("a0")
    assert lanes.next() is None
    lanes.done("b0")
    assert [found[0] for found in iter(lanes.next, None)] == ["b2"]


def test_consecutive_items_that_join_are_taken_together() -> None:
    lanes = lanes_of(2, 3)
    entries = [Entry(0, joins="x"), Entry(1, joins="x"), Entry(2, joins="y"), Entry(3, joins="x"), Entry(4), Entry(5)]
    for one in entries:
        lanes.put("a", one)
    taken = []
    while found := lanes.next():
        taken.append([one.number for one in found[1]])
        lanes.done("a")

    assert taken == [[0, 1], [2], [3], [4], [5]]


def test_items_join_across_ranks_but_not_past_another_item() -> None:
    lanes = lanes_of(3, 10)
    for one in (Entry(0, 0, "x"), Entry(1, 1, "x"), Entry(2, 1, "y"), Entry(3, 2, "x")):
        lanes.put("a", one)

    assert lanes.next() == ("a", [Entry(0, 0, "x"), Entry(1, 1, "x")])


def test_the_items_taken_together_are_limited() -> None:
    lanes = lanes_of(1, 3)
    for number in range(5):
        lanes.put("a", Entry(number, joins="x"))
    found = lanes.next()

    assert found
    assert len(found[1]) == 3
    assert lanes.waiting == 2


def test_a_lane_without_items_is_removed() -> None:
    lanes = lanes_of(2, 3)
    for one in (Entry(0), Entry(1, 1)):
        lanes.put("a", one)
    lanes.put("b", Entry(2))
    lanes.put("c", Entry(3))
    lanes.put("c", Entry(4))
    assert lanes.next() == ("a", [Entry(0)])
    lanes.drop(lambda one: one.number in {1, 2, 3})
    lanes.done("a")

    assert lanes.waiting == 1
    assert lanes.next() == ("c", [Entry(4)])
    assert lanes.next() is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 2), st.sampled_from(["x", "y", None]), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 4),
    st.sampled_from([None, 1, 2]),
    st.lists(st.sampled_from([None, 1, 2, 3]), min_size=1, max_size=20),
)
def test_every_item_is_taken_once_in_order_and_within_the_quotas(
    steps: list[tuple[str, int, str | None, bool]], total: int, each: int | None, widths: list[int | None]
) -> None:
    """There are two ranks of one flow and one of another; keys a to c belong to one group, the others to another.

    The limit of the group ``low`` changes with each step.
    """
    width: list[int | None] = [None]
    shared, own = (Quota(total, each, lambda group: width[0] if group == "low" else None) for _ in range(2))
    quotas = [shared, shared, own]
    lanes: Lanes[Entry] = Lanes(quotas, 4)
    put, taken = defaultdict(list), defaultdict(list)
    busy: dict[Hashable, tuple[Quota, Hashable]] = {}

    def begin() -> bool:
        found = lanes.next()
        if found:
            key, entries = found
            assert key not in busy
            assert len({one.joins for one in entries}) == 1
            busy[key] = quotas[entries[0].rank], entries[0].group
            assert sum(quota is busy[key][0] for quota, _ in busy.values()) <= total
            in_flight = list(busy.values()).count(busy[key])
            assert each is None or in_flight <= each
            assert busy[key][1] != "low" or width[0] is None or in_flight <= width[0]
            for one in entries:
                taken[key, one.rank].append(one.number)
        return bool(found)

    def end() -> None:
        key = next(iter(busy))
        del busy[key]
        lanes.done(key)

    for number, (key, rank, joins, go) in enumerate(steps):
        width[0] = widths[number % len(widths)]
        lanes.put(key, Entry(number, rank, joins, "low" if key <= "c" else "high"))
        put[key, rank].append(number)
        if go:
            begin()
        elif busy:
            end()
    while begin() or busy:
        if busy:
            end()

    assert taken == put
    assert lanes.waiting == 0
    assert (shared.taken, own.taken) == (0, 0)
