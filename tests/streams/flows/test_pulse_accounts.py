"""A pulse: which calls it makes, and what follows from what it finds."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from connectors.ports import Failure, Rejected, Throttled, Unauthorized
from schemas import topics
from schemas.base import EntityKind
from schemas.pms import FetchOrigin, FetchRequest, PulseStep
from schemas.rent_roll import LeaseStatus, ListingSnapshot, Page, PulseEnd
from streams.core.breaker import Breakers, Integration
from streams.core.flows import Disposition, Emit
from streams.core.observer import NullObserver
from streams.core.pulse import MAX_PAGES, SKEW
from streams.core.retry import Done
from streams.core.sequence import FetchSequence
from streams.flows.pulse_accounts import PulseAccounts
from tests.streams.core.rent_roll.rolls import building, lease, unit
from tests.streams.flows.parts import CONNECTION, DOWN, NOW, ORG, Site, account, consumed

SINCE = NOW - timedelta(minutes=2)
THEIR_NOW = NOW + timedelta(seconds=40)
STEP = PulseStep(org=ORG, connection=CONNECTION, since=SINCE, started_at=NOW)
PROPERTY, UNIT, LEASE, LISTING = EntityKind.PROPERTY, EntityKind.UNIT, EntityKind.LEASE, EntityKind.LISTING


@dataclass
class Desk:
    """The flow with an account that a test plays."""

    site: Site = field(default_factory=lambda: Site(account()))

    def __post_init__(self) -> None:
        self.account = self.site.account()
        self.account.at = THEIR_NOW
        self.breakers = Breakers(NullObserver())
        self.flow = PulseAccounts(self.site.clients, FetchSequence(), self.site.clock, self.breakers)

    async def pulse(self) -> list[Emit]:
        found = await self.flow.perform([consumed(topics.PULSES.name, STEP)])
        assert found.ending is Disposition.APPLIED
        return list(found.effects)

    async def ignored(self) -> bool:
        found = await self.flow.perform([consumed(topics.PULSES.name, STEP)])
        return found == Done(ending=Disposition.IGNORED)


def pages(emits: list[Emit]) -> dict[EntityKind, list[int]]:
    found: dict[EntityKind, list[int]] = {}
    for one in emits:
        if isinstance(one.record, Page):
            found.setdefault(one.record.kind, []).extend(item.id for item in one.record.items)
    return found


async def test_it_asks_for_what_was_updated_and_for_the_listings() -> None:
    """Four calls for a quiet account; a past lease is part of what changed."""
    desk = Desk()
    desk.account.holds(PROPERTY, building(10))
    desk.account.holds(UNIT, unit(1), unit(2))
    desk.account.holds(LEASE, lease(status=LeaseStatus.PAST))
    desk.account.holds(LISTING, ListingSnapshot(unit_id=1))
    emits = await desk.pulse()

    assert desk.account.asked == [(PROPERTY, SINCE, 0), (UNIT, SINCE, 0), (LEASE, SINCE, 0)]
    assert len(desk.account.read) == 4
    assert pages(emits) == {PROPERTY: [10], UNIT: [1, 2], LEASE: [lease().id], LISTING: [1]}
    assert emits[-1].record == PulseEnd(org=ORG, connection=CONNECTION, until=THEIR_NOW)
    assert all(one.topic is topics.CHANGES for one in emits)


async def test_each_call_has_a_sequence_that_was_taken_before_it() -> None:
    desk = Desk()
    desk.account.holds(UNIT, *(unit(number) for number in range(1, 6)))
    emits = await desk.pulse()
    seqs = [one.record.seq for one in emits if isinstance(one.record, Page)]

    assert [offset for kind, _, offset in desk.account.asked if kind is UNIT] == [0, 2, 4]
    assert len(seqs) == 3
    assert seqs == sorted(set(seqs))
    assert [int(dict(one.headers)["rent-seq"]) for one in emits[:-1]] == seqs


async def test_more_changes_than_a_pulse_reads_are_left_to_the_sweep() -> None:
    """Such as a change of every lease at once: the next pulse does not begin with them again."""
    desk = Desk()
    desk.account.holds(UNIT, *(unit(number) for number in range(1, 100)))
    emits = await desk.pulse()

    assert len(pages(emits)[UNIT]) == MAX_PAGES * desk.account.page_size
    assert emits[-1].record == PulseEnd(org=ORG, connection=CONNECTION, until=THEIR_NOW)


async def test_of_the_listings_only_what_changed_since_the_last_pulse_follows() -> None:
    """A listing that has disappeared is asked for by its unit, since only a 404 removes it."""
    desk = Desk()
    desk.account.holds(LISTING, ListingSnapshot(unit_id=1), ListingSnapshot(unit_id=2))
    first = await desk.pulse()
    desk.account.holds(LISTING, ListingSnapshot(unit_id=2), ListingSnapshot(unit_id=3))
    second = await desk.pulse()
    third = await desk.pulse()
    (asked,) = [one for one in second if isinstance(one.record, FetchRequest)]

    assert [pages(one).get(LISTING) for one in (first, second, third)] == [[1, 2], [3], None]
    assert asked.topic is topics.WEBHOOKS
    assert isinstance(asked.record, FetchRequest)
    assert (asked.record.kind, asked.record.entity, asked.record.origin) == (LISTING, 1, FetchOrigin.ROLL)


async def test_a_long_list_of_listings_is_left_to_the_sweep() -> None:
    """The account has pages of two."""
    desk = Desk()
    desk.account.holds(LISTING, *(ListingSnapshot(unit_id=number) for number in range(1, 4)))

    assert pages(await desk.pulse()) == {}
    assert [kind for kind, _ in desk.account.read].count(LISTING) == 1


async def test_listings_that_may_not_be_read_are_left_out() -> None:
    desk = Desk()
    desk.account.failures[LISTING] = Unauthorized("the key may not read listings", 403)
    desk.account.holds(UNIT, unit(1))

    assert pages(await desk.pulse()) == {UNIT: [1]}


@pytest.mark.parametrize("failure", [DOWN, Throttled("slow", 60), Rejected("no"), Unauthorized("key")])
async def test_a_pulse_that_fails_is_not_retried(failure: Failure) -> None:
    """The next one asks from the same time on, because this one did not end."""
    desk = Desk()
    desk.account.failures[LEASE] = failure

    assert await desk.ignored()


async def test_while_the_account_is_on_hold_it_is_not_called() -> None:
    desk = Desk()
    desk.breakers.ended(Integration(ORG, CONNECTION, 1), 1, Throttled("slow", 600), NOW)

    assert await desk.ignored()
    assert desk.account.read == []


async def test_an_account_that_cannot_be_read_has_no_pulse() -> None:
    desk = Desk(Site(account(enabled=False)))

    assert await desk.ignored()


async def test_a_clock_that_is_not_told_is_taken_to_be_far_behind() -> None:
    desk = Desk()
    desk.account.at = None
    (end,) = await desk.pulse()

    assert end.record == PulseEnd(org=ORG, connection=CONNECTION, until=NOW - SKEW)
