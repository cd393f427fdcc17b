"""When a pulse of an account starts, and from which time on it asks."""

from datetime import datetime, timedelta

from schemas import topics
from schemas.codec import encode
from schemas.partitions import partition_for
from schemas.pms import PulseStep
from schemas.rent_roll import AccountRow
from streams.core.pulse import OVERLAP, SKEW
from streams.core.rent_roll import account_key, scope
from streams.flows.schedule_pulses import SchedulePulses
from streams.topology import RENT_ROLL
from tests.streams.core.views import MemoryView
from tests.streams.flows.parts import CONNECTION, NOW, ORG, Site, account, emits_of, unwritten

PARTITIONS = 4
HERE = partition_for(ORG, PARTITIONS)


class Desk:
    """The scan over the row of one account."""

    def __init__(self, every: float = 60.0, *, enabled: bool = True, share: float = 0.0) -> None:
        self.share = share
        self.site = Site(account(enabled=enabled))
        self.view = MemoryView()
        self.scan = SchedulePulses(self.site.directory, every, PARTITIONS, self.site.clock, lambda _name: self.share)

    def swept(self, at: datetime = NOW, pulsed_until: datetime | None = None) -> None:
        row = AccountRow(sweep="s", first_sweep="s", started_at=at, completed_at=at, pulsed_until=pulsed_until)
        self.view[account_key(scope(ORG, CONNECTION))] = encode(row)

    def pulses(self, partition: int = HERE) -> list[PulseStep]:
        emits = emits_of(self.scan.step({RENT_ROLL: self.view}, partition))
        assert all((one.topic, one.org) == (topics.PULSES, ORG) for one in emits)
        return [one.record for one in emits if isinstance(one.record, PulseStep)]


async def test_an_account_has_a_pulse_at_the_interval_once_it_was_swept() -> None:
    desk = Desk()
    before = desk.pulses()
    desk.swept()
    counts = [len(before), len(desk.pulses())]
    for seconds in (0, 59, 1, 60):
        await desk.site.clock.advance(seconds)
        counts.append(len(desk.pulses()))

    assert counts == [0, 1, 0, 0, 1, 1]


async def test_the_pulses_of_an_account_keep_their_place_in_the_interval() -> None:
    """Also those of another owner: the clock shows NOW, at which an interval begins."""
    desk = Desk(share=0.25)
    desk.swept()
    counts = []
    for seconds in (0, 14, 2, 58, 1, 60):
        await desk.site.clock.advance(seconds)
        counts.append(len(desk.pulses()))
    desk.scan = SchedulePulses(desk.site.directory, 60.0, PARTITIONS, desk.site.clock, lambda _name: desk.share)
    for seconds in (0, 59, 1):
        await desk.site.clock.advance(seconds)
        counts.append(len(desk.pulses()))

    assert counts == [0, 0, 1, 0, 1, 1, 1, 0, 1]


async def test_pulses_that_were_missed_are_not_made_up_for() -> None:
    desk = Desk(share=0.25)
    desk.swept()
    await desk.site.clock.advance(20)
    counts = [len(desk.pulses())]
    for seconds in (600, 0, 54, 1):
        await desk.site.clock.advance(seconds)
        counts.append(len(desk.pulses()))

    assert counts == [0, 1, 0, 0, 1]


async def test_it_asks_from_shortly_before_the_end_of_the_last_one() -> None:
    """The first one from well before the sweep, whose time is that of the local clock; so does a later one at most."""
    desk = Desk()
    desk.swept(NOW)
    (first,) = desk.pulses()
    await desk.site.clock.advance(60)
    desk.swept(NOW, pulsed_until=NOW + timedelta(seconds=50))
    (second,) = desk.pulses()
    await desk.site.clock.advance(60)
    desk.swept(NOW + timedelta(hours=3), pulsed_until=NOW)
    (late,) = desk.pulses()

    assert first == PulseStep(org=ORG, connection=CONNECTION, since=NOW - SKEW, started_at=NOW)
    assert second.since == NOW + timedelta(seconds=50) - OVERLAP
    assert late.since == NOW + timedelta(hours=3) - SKEW


def test_pulses_can_be_switched_off() -> None:
    desk = Desk(every=0.0)
    desk.swept()

    assert desk.pulses() == []


def test_a_disabled_account_and_one_of_another_partition_have_none() -> None:
    disabled, elsewhere = Desk(enabled=False), Desk()
    disabled.swept()
    elsewhere.swept()

    assert disabled.pulses() == []
    assert elsewhere.pulses((HERE + 1) % PARTITIONS) == []


async def test_a_pulse_that_was_not_written_starts_with_the_next_look() -> None:
    desk = Desk()
    desk.swept()
    assert len(unwritten(desk.scan.step({RENT_ROLL: desk.view}, HERE))) == 1
    assert (len(desk.pulses()), len(desk.pulses())) == (1, 0)
