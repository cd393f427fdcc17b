"""Lanes: one thing at a time per key, in order; the first rank first; the longest waiting first within a rank."""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.runners.lanes import Lanes, Quota


@dataclass(frozen=True)
class Thing:
    """Something that waits."""

    number: int
    rank: int = 0
    joins: Hashable | None = None
    group: Hashable = None


def lanes_of(ranks: int, most_together: int) -> Lanes[Thing]:
    """Return lanes with one quota for all ranks, and more than enough slots."""
    return Lanes([Quota(100)] * ranks, most_together)


def test_a_busy_lane_makes_its_own_wait_and_nobody_else() -> None:
    lanes = lanes_of(1, 10)
    for number, key in enumerate("aab"):
        lanes.put(key, Thing(number))

    assert lanes.next() == ("a", [Thing(0)])
    assert lanes.next() == ("b", [Thing(2)])
    assert lanes.next() is None
    lanes.done("a")
    assert lanes.next() == ("a", [Thing(1)])


def test_the_first_rank_goes_first_between_lanes_and_within_them() -> None:
    lanes = lanes_of(3, 10)
    lanes.put("a", Thing(0, 2))
    lanes.put("b", Thing(1, 1))
    lanes.put("a", Thing(2, 0))
    taken = []
    while found := lanes.next():
        taken += found[1]
        lanes.done(found[0])

    assert taken == [Thing(2, 0), Thing(1, 1), Thing(0, 2)]


def test_each_rank_of_a_quota_leaves_a_slot_to_those_before_it() -> None:
    lanes: Lanes[Thing] = Lanes([Quota(2)] * 2, 10)
    for number, (key, rank) in enumerate((("a", 1), ("b", 1), ("c", 0), ("d", 0))):
        lanes.put(key, Thing(number, rank))

    assert [found[0] for found in iter(lanes.next, None)] == ["c", "d"]
    lanes.done("c")
    assert lanes.next() is None
    lanes.done("d")
    assert lanes.next() == ("a", [Thing(0, 1)])
    assert lanes.next() is None


def test_a_flow_takes_no_slot_of_another() -> None:
    lanes: Lanes[Thing] = Lanes([Quota(1), Quota(1)], 10)
    for number, (key, rank) in enumerate((("a", 0), ("b", 0), ("c", 1), ("d", 1))):
        lanes.put(key, Thing(number, rank))

    assert [found[0] for found in iter(lanes.next, None)] == ["a", "c"]


def test_groups_take_turns_however_much_one_of_them_has() -> None:
    lanes = lanes_of(1, 10)
    for number in range(4):
        lanes.put(f"a{number}", Thing(number, group="a"))
    for number in range(2):
        lanes.put(f"b{number}", Thing(number, group="b"))
    lanes.put("c0", Thing(0, group="c"))

    assert [found[0] for found in iter(lanes.next, None)] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_group_has_no_more_in_flight_than_its_share_and_then_waits_its_turn() -> None:
    lanes: Lanes[Thing] = Lanes([Quota(10, 2)], 10)
    for group in "ab":
        for number in range(4):
            lanes.put(f"{group}{number}", Thing(number, group=group))

    assert [found[0] for found in iter(lanes.next, None)] == ["a0", "b0", "a1", "b1"]
    lanes.put("a9", Thing(9, group="a"))
    assert lanes.next() is None
    lanes.done("a1")
    assert [found[0] for found in iter(lanes.next, None)] == ["a2"]
    lanes.drop(lambda one: one.group == "a")
    lanes.done("a0")
    assert lanes.next() is None
    lanes.done("b0")
    assert [found[0] for found in iter(lanes.next, None)] == ["b2"]


def test_what_waits_behind_each_other_and_joins_is_done_together() -> None:
    lanes = lanes_of(2, 3)
    things = [Thing(0, joins="x"), Thing(1, joins="x"), Thing(2, joins="y"), Thing(3, joins="x"), Thing(4), Thing(5)]
    for one in things:
        lanes.put("a", one)
    taken = []
    while found := lanes.next():
        taken.append([one.number for one in found[1]])
        lanes.done("a")

    assert taken == [[0, 1], [2], [3], [4], [5]]


def test_joining_goes_on_into_the_next_rank_but_not_past_what_waits_before_it() -> None:
    lanes = lanes_of(3, 10)
    for one in (Thing(0, 0, "x"), Thing(1, 1, "x"), Thing(2, 1, "y"), Thing(3, 2, "x")):
        lanes.put("a", one)

    assert lanes.next() == ("a", [Thing(0, 0, "x"), Thing(1, 1, "x")])


def test_no_more_are_done_together_than_the_bound() -> None:
    lanes = lanes_of(1, 3)
    for number in range(5):
        lanes.put("a", Thing(number, joins="x"))
    found = lanes.next()

    assert found
    assert len(found[1]) == 3
    assert lanes.waiting == 2


def test_what_is_dropped_is_forgotten_and_the_lane_with_it() -> None:
    lanes = lanes_of(2, 3)
    for one in (Thing(0), Thing(1, 1)):
        lanes.put("a", one)
    lanes.put("b", Thing(2))
    lanes.put("c", Thing(3))
    lanes.put("c", Thing(4))
    assert lanes.next() == ("a", [Thing(0)])
    lanes.drop(lambda one: one.number in {1, 2, 3})
    lanes.done("a")

    assert lanes.waiting == 1
    assert lanes.next() == ("c", [Thing(4)])
    assert lanes.next() is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 2), st.sampled_from(["x", "y", None]), st.booleans()),
        max_size=60,
    ),
    st.integers(1, 4),
    st.sampled_from([None, 1, 2]),
)
def test_everything_is_taken_once_in_order_per_key_and_rank_and_within_the_quotas(
    steps: list[tuple[str, int, str | None, bool]], total: int, each: int | None
) -> None:
    """Two ranks of one flow and one of another; keys a to c are of one group, the others of another."""
    shared, own = Quota(total, each), Quota(total, each)
    quotas = [shared, shared, own]
    lanes: Lanes[Thing] = Lanes(quotas, 4)
    put, taken = defaultdict(list), defaultdict(list)
    busy: dict[Hashable, tuple[Quota, Hashable]] = {}

    def begin() -> bool:
        found = lanes.next()
        if found:
            key, things = found
            assert key not in busy
            assert len({one.joins for one in things}) == 1
            busy[key] = quotas[things[0].rank], things[0].group
            assert sum(quota is busy[key][0] for quota, _ in busy.values()) <= total
            assert each is None or list(busy.values()).count(busy[key]) <= each
            for one in things:
                taken[key, one.rank].append(one.number)
        return bool(found)

    def end() -> None:
        key = next(iter(busy))
        del busy[key]
        lanes.done(key)

    for number, (key, rank, joins, go) in enumerate(steps):
        lanes.put(key, Thing(number, rank, joins, "low" if key <= "c" else "high"))
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
