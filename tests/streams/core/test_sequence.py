"""Tests of the fetch sequence, with clocks and owners that differ."""

import asyncio
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import MAY_CALL, may_call
from streams.backends.memory import MovableClock
from streams.core.sequence import FetchSequence, Look

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICRO = timedelta(microseconds=1)


def test_a_sequence_is_the_time_in_microseconds() -> None:
    """A float is exact to the microsecond."""
    sequence = FetchSequence()
    assert sequence.take(0, NOW) == 1_772_366_400_000_000
    assert sequence.take(0, NOW + 3 * MICRO) == 1_772_366_400_000_003


def test_reserved_numbers_are_not_returned_again() -> None:
    sequence = FetchSequence()
    first = sequence.take(0, NOW, 10)
    assert sequence.take(0, NOW, 2) == first + 10
    assert sequence.take(0, NOW + 5 * MICRO) == first + 12


def test_partitions_have_separate_sequences() -> None:
    sequence = FetchSequence()
    assert sequence.take(0, NOW, 100) == sequence.take(1, NOW)


def test_a_seeded_sequence_continues_after_the_seed() -> None:
    """The clock may be behind the seed; a seed that is less than the last number has no effect."""
    sequence = FetchSequence()
    before = FetchSequence().take(0, NOW + timedelta(hours=1))
    sequence.seed(0, before)
    sequence.seed(0, 7)
    assert sequence.take(0, NOW) == before + 1
    assert sequence.take(1, NOW) < before


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "seed"]), st.integers(0, 2), st.integers(-5000, 5000), st.integers(1, 9)),
        max_size=30,
    )
)
def test_a_sequence_only_increases(calls: list[tuple[str, int, int, int]]) -> None:
    """For any clock and any seeds, no number is returned twice and each one is greater than the one before."""
    sequence = FetchSequence()
    highest = dict.fromkeys(range(3), 0)
    for call, partition, micros, count in calls:
        now = NOW + micros * MICRO
        if call == "seed":
            seen = int(now.timestamp() * 1_000_000)
            sequence.seed(partition, seen)
            highest[partition] = max(highest[partition], seen)
        else:
            first = sequence.take(partition, now, count)
            assert first > highest[partition]
            highest[partition] = first + count - 1


async def test_the_number_of_a_look_is_taken_when_its_first_request_is_sent() -> None:
    """What another request brought while it waited for its turn counts as older."""
    sequence, clock, turn = FetchSequence(), MovableClock(NOW), asyncio.Event()

    async def fetch() -> int:
        with Look(sequence, 0, clock) as look:
            await turn.wait()
            await may_call()
            await may_call()
        return look.first

    waiting = asyncio.create_task(fetch())
    await asyncio.sleep(0)
    await clock.advance(60)
    other = sequence.take(0, clock.now())
    turn.set()

    assert await waiting == other + 1
    assert sequence.take(0, clock.now()) == other + 2


async def test_a_look_takes_numbers_for_all_of_its_records_and_keeps_the_permission_of_the_runner() -> None:
    sequence, clock, asked = FetchSequence(), MovableClock(NOW), []

    async def permission() -> None:
        asked.append(clock.now())

    outer = MAY_CALL.set(permission)
    try:
        with Look(sequence, 0, clock, 3) as look:
            await asyncio.gather(may_call(), may_call())
        await may_call()
    finally:
        MAY_CALL.reset(outer)

    assert len(asked) == 3
    assert sequence.take(0, clock.now()) == look.first + 3


def test_a_look_without_a_request_has_the_number_of_its_beginning() -> None:
    sequence, clock = FetchSequence(), MovableClock(NOW)
    with Look(sequence, 0, clock) as look:
        pass

    assert look.first == sequence.take(0, NOW) - 1
