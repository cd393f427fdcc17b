"""Tests of the moments of a schedule."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import Schedule
from streams.core.schedule import SPREAD, latest_due

ZONE = ZoneInfo("America/Edmonton")
DAILY = Schedule("0 2 * * *", "America/Edmonton")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).astimezone(UTC)


def minutes(begin: datetime, hours: int) -> Iterator[datetime]:
    return (begin + timedelta(minutes=one) for one in range(hours * 60))


def test_it_is_due_at_its_local_time_or_within_the_spread() -> None:
    yesterday, today = local("2026-03-01T02:00"), local("2026-03-02T02:00")

    assert latest_due(DAILY, "org/r", today - timedelta(seconds=1)) == yesterday
    assert latest_due(DAILY, "org/r", today + SPREAD) == today


def test_receivers_are_spread_and_keep_their_place() -> None:
    at = local("2026-03-02T02:00")
    starts = {}
    for number in range(200):
        name = f"org{number}/r"
        starts[name] = next(
            second for second in range(301) if latest_due(DAILY, name, at + timedelta(seconds=second)) == at
        )

    assert len(set(starts.values())) > 100
    assert (min(starts.values()) < 30, max(starts.values()) > 270) == (True, True)


def test_a_frequent_schedule_is_spread_over_a_part_of_its_pause() -> None:
    often = Schedule("* * * * *", "UTC")
    at = local("2026-03-02T02:00")

    assert {latest_due(often, f"org{number}", at + timedelta(seconds=5)) for number in range(100)} == {at}


@pytest.mark.parametrize(
    ("cron", "day", "moments"),
    [
        ("30 2 * * *", "2026-03-07T12:00", ["2026-03-08T09:00+00:00"]),  # 02:30 does not exist: at the next minute
        ("30 1 * * *", "2026-10-31T12:00", ["2026-11-01T07:30+00:00"]),  # 01:30 comes twice: the first counts
    ],
)
def test_a_change_of_the_clocks_neither_skips_nor_doubles_a_day(cron: str, day: str, moments: list[str]) -> None:
    schedule, begin = Schedule(cron, "America/Edmonton"), local(day)
    found = {latest_due(schedule, "org/r", at) for at in minutes(begin, 26)}

    assert {one for one in found if one > begin} == {datetime.fromisoformat(one) for one in moments}


@given(st.integers(0, 365 * 24 * 3600), st.sampled_from(["0 2 * * *", "*/7 * * * *"]))
def test_time_never_leads_back_to_an_earlier_moment(second: int, cron: str) -> None:
    schedule, now = Schedule(cron, "America/Edmonton"), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    first, later = (latest_due(schedule, "org/r", one) for one in (now, now + timedelta(seconds=97)))

    assert first <= later
    assert first <= now


def test_of_several_missed_moments_the_latest_counts() -> None:
    assert latest_due(DAILY, "org/r", local("2026-03-09T12:00")) == local("2026-03-09T02:00")
