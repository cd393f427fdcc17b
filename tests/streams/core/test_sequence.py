"""Tests of the fetch sequence, with clocks and owners that differ."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streams.core.sequence import FetchSequence

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
