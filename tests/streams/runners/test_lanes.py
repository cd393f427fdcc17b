"""Lanes: one thing at a time per key, in order; the first rank first; the longest waiting first within a rank."""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streams.runners.lanes import Lanes


@dataclass(frozen=True)
class Thing:
    """Something that waits."""

    number: int
    rank: int = 0
    joins: Hashable | None = None


def everyone(_rank: int) -> bool:
    return True


def test_a_busy_lane_makes_its_own_wait_and_nobody_else() -> None:
    lanes: Lanes[Thing] = Lanes(1, 10)
    for number, key in enumerate("aab"):
        lanes.put(key, Thing(number))

    assert lanes.next(everyone) == ("a", [Thing(0)])
    assert lanes.next(everyone) == ("b", [Thing(2)])
    assert lanes.next(everyone) is None
    lanes.done("a")
    assert lanes.next(everyone) == ("a", [Thing(1)])


def test_the_first_rank_goes_first_between_lanes_and_within_them() -> None:
    lanes: Lanes[Thing] = Lanes(3, 10)
    lanes.put("a", Thing(0, 2))
    lanes.put("b", Thing(1, 1))
    lanes.put("a", Thing(2, 0))
    taken = []
    while found := lanes.next(everyone):
        taken += found[1]
        lanes.done(found[0])

    assert taken == [Thing(2, 0), Thing(1, 1), Thing(0, 2)]


def test_a_rank_that_may_not_waits() -> None:
    lanes: Lanes[Thing] = Lanes(2, 10)
    lanes.put("a", Thing(0, 1))

    assert lanes.next(lambda rank: rank == 0) is None
    assert lanes.next(everyone) == ("a", [Thing(0, 1)])


def test_what_waits_behind_each_other_and_joins_is_done_together() -> None:
    lanes: Lanes[Thing] = Lanes(2, 3)
    things = [Thing(0, joins="x"), Thing(1, joins="x"), Thing(2, joins="y"), Thing(3, joins="x"), Thing(4), Thing(5)]
    for one in things:
        lanes.put("a", one)
    taken = []
    while found := lanes.next(everyone):
        taken.append([one.number for one in found[1]])
        lanes.done("a")

    assert taken == [[0, 1], [2], [3], [4], [5]]


def test_joining_goes_on_into_the_next_rank_but_not_past_what_waits_before_it() -> None:
    lanes: Lanes[Thing] = Lanes(3, 10)
    for one in (Thing(0, 0, "x"), Thing(1, 1, "x"), Thing(2, 1, "y"), Thing(3, 2, "x")):
        lanes.put("a", one)

    assert lanes.next(everyone) == ("a", [Thing(0, 0, "x"), Thing(1, 1, "x")])


def test_no_more_are_done_together_than_the_bound() -> None:
    lanes: Lanes[Thing] = Lanes(1, 3)
    for number in range(5):
        lanes.put("a", Thing(number, joins="x"))
    found = lanes.next(everyone)

    assert found
    assert len(found[1]) == 3
    assert lanes.waiting == 2


def test_what_is_dropped_is_forgotten_and_the_lane_with_it() -> None:
    lanes: Lanes[Thing] = Lanes(2, 3)
    for one in (Thing(0), Thing(1, 1)):
        lanes.put("a", one)
    lanes.put("b", Thing(2))
    lanes.put("c", Thing(3))
    lanes.put("c", Thing(4))
    assert lanes.next(everyone) == ("a", [Thing(0)])
    lanes.drop(lambda one: one.number in {1, 2, 3})
    lanes.done("a")

    assert lanes.waiting == 1
    assert lanes.next(everyone) == ("c", [Thing(4)])
    assert lanes.next(everyone) is None


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(["x", "y", None]), st.booleans()),
        max_size=60,
    )
)
def test_everything_is_taken_once_and_in_order_per_key_and_rank(steps: list[tuple[str, int, str | None, bool]]) -> None:
    lanes: Lanes[Thing] = Lanes(3, 4)
    put, taken = defaultdict(list), defaultdict(list)
    busy: list[Hashable] = []

    def begin() -> bool:
        found = lanes.next(everyone)
        if found:
            key, things = found
            assert key not in busy
            assert len({one.joins for one in things}) == 1
            busy.append(key)
            for one in things:
                taken[key, one.rank].append(one.number)
        return bool(found)

    for number, (key, rank, joins, go) in enumerate(steps):
        lanes.put(key, Thing(number, rank, joins))
        put[key, rank].append(number)
        if go:
            begin()
        elif busy:
            lanes.done(busy.pop(0))
    while begin() or busy:
        if busy:
            lanes.done(busy.pop())

    assert taken == put
    assert lanes.waiting == 0
