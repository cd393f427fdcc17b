"""The order of fetches, over clocks and owners."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streams.core.sequence import FetchSequence

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICRO = timedelta(microseconds=1)


def test_a_sequence_is_the_time_in_microseconds() -> None:
    """To the last of them: a float still holds it."""
    sequence = FetchSequence()
    assert sequence.take(0, NOW) == 1_772_366_400_000_000
    assert sequence.take(0, NOW + 3 * MICRO) == 1_772_366_400_000_003


def test_numbers_taken_in_a_row_are_not_given_again() -> None:
    sequence = FetchSequence()
    first = sequence.take(0, NOW, 10)
    assert sequence.take(0, NOW, 2) == first + 10
    assert sequence.take(0, NOW + 5 * MICRO) == first + 12


def test_partitions_count_on_their_own() -> None:
    sequence = FetchSequence()
    assert sequence.take(0, NOW, 100) == sequence.take(1, NOW)


def test_a_new_owner_goes_on_from_what_it_is_told() -> None:
    """Even on a clock that is behind; what is older than it knows changes nothing."""
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
def test_a_sequence_only_grows(calls: list[tuple[str, int, int, int]]) -> None:
    """Whatever the clock and the seeds: no number twice, none smaller than one before."""
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
