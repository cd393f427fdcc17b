"""A full read of an account, step by step: its pages, its progress, and how it ends."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from connectors.ports import Failure, Rejected, Throttled, Unauthorized
from schemas import topics
from schemas.base import EntityKind
from schemas.integrations import SyncResult
from schemas.pms import STAGES, RecheckStep, SweepStep
from schemas.rent_roll import ListingSnapshot, Page, SweepEnd
from streams.backends.memory import MovableClock
from streams.core.breaker import FAILURES, Breakers, Integration
from streams.core.flows import Disposition, Emit, Headers
from streams.core.observer import NullObserver
from streams.core.retry import Dead, Done, Held, Reason, ladder
from streams.core.sequence import FetchSequence
from streams.core.sweep import Admission, Running
from streams.flows.sweep_accounts import SweepAccounts
from streams.runners.call import Answer
from tests.streams.core.rent_roll.rolls import building, fold, lease, page, swept, unit, unit_row
from tests.streams.flows.parts import (
    CONNECTION,
    DOWN,
    NOW,
    ORG,
    Site,
    account,
    consumed,
    dead,
    done,
    held,
    parked,
    progresses,
    receiver,
)

STARTED = NOW + timedelta(minutes=1)
"""After the sweep that the rent roll holds (`swept`)."""
FORBIDDEN = Unauthorized("the key may not read listings", 403)
FIRST = SweepStep(org=ORG, connection=CONNECTION, sweep="s2", started_at=STARTED, stage=EntityKind.PROPERTY)


@dataclass
class Desk:
    """The flow with an account of two properties and five units."""

    site: Site = field(default_factory=lambda: Site(account(), receiver(), clock=MovableClock(STARTED)))
    running: Running = field(default_factory=Running)

    def __post_init__(self) -> None:
        self.account = self.site.account()
        self.account.holds(EntityKind.PROPERTY, building(10), building(11))
        self.account.holds(EntityKind.UNIT, *(unit(number) for number in range(1, 6)))
        self.account.holds(EntityKind.LEASE, lease())
        self.account.holds(EntityKind.LISTING, ListingSnapshot(unit_id=1))
        self.breakers = Breakers(NullObserver())
        self.flow = SweepAccounts(
            self.site.clients, FetchSequence(), ladder("1m,2m"), self.site.clock, self.running, self.breakers
        )

    async def step(self, step: SweepStep = FIRST, headers: Headers = ()) -> Answer:
        return await self.flow.perform([consumed(topics.SWEEPS.name, step, headers)])

    async def whole(self, step: SweepStep = FIRST) -> list[Emit]:
        """Read to the end, and return all that was emitted on the way."""
        emits: list[Emit] = []
        following: SweepStep | None = step
        while following is not None:
            effects = done(await self.step(following))
            emits += effects
            following = next((one.record for one in effects if isinstance(one.record, SweepStep)), None)
        return emits

    def may_start(self) -> bool:
        """Return whether another sweep may begin."""
        found = self.running.admits(FIRST.model_copy(update={"sweep": "s3"}), self.site.clock.now())
        return found is Admission.YES


def pages_of(emits: list[Emit]) -> list[Page]:
    return [one.record for one in emits if isinstance(one.record, Page)]


def end_of(emits: list[Emit]) -> SweepEnd:
    (end,) = (one.record for one in emits if isinstance(one.record, SweepEnd))
    return end


def at(stage: EntityKind, **more: object) -> SweepStep:
    return FIRST.model_copy(update={"stage": stage, "seq": 1, "pages": (1,) * STAGES.index(stage), **more})


# --------------------------------------------------------------------------------------------------------- to the end


async def test_a_sweep_reads_every_stage_and_ends() -> None:
    """Its pages and its end are on the topic of the changes, each page with its sequence in a header."""
    desk = Desk()
    emits = await desk.whole()
    pages, end = pages_of(emits), end_of(emits)

    assert [(one.kind, one.number, len(one.items)) for one in pages] == [
        (EntityKind.PROPERTY, 0, 2),
        (EntityKind.UNIT, 0, 2),
        (EntityKind.UNIT, 1, 2),
        (EntityKind.UNIT, 2, 1),
        (EntityKind.LEASE, 0, 1),
        (EntityKind.LISTING, 0, 1),
    ]
    assert (end.sweep, end.pages, end.entities, end.torn, end.denied) == ("s2", (1, 3, 1, 1), 9, False, ())
    assert end.seq < min(one.seq for one in pages)
    assert [one.seq for one in pages] == sorted({one.seq for one in pages})
    assert [one.headers for one in emits if isinstance(one.record, Page)] == [
        (("rent-seq", str(one.seq).encode()),) for one in pages
    ]
    assert {one.topic for one in emits if isinstance(one.record, Page | SweepEnd)} == {topics.CHANGES}
    assert desk.may_start()


async def test_a_step_that_comes_again_is_not_made_again() -> None:
    """After a crash it comes with its successor: two chains of steps to the end would follow."""
    desk = Desk()
    (second,) = (one.record for one in done(await desk.step()) if isinstance(one.record, SweepStep))
    await desk.step(second)
    calls = len(desk.account.read)
    again = [await desk.step(one) for one in (FIRST, second)]

    assert [isinstance(one, Done) and (one.ending, one.effects) for one in again] == [(Disposition.DUPLICATE, ())] * 2
    assert len(desk.account.read) == calls


async def test_progress_follows_each_step_but_the_last() -> None:
    """After the last one the rent roll writes the result."""
    emits = await Desk().whole()
    shown = progresses(emits)

    assert [(one.stage, one.number, one.stages, one.read, one.total) for one in shown] == [
        (EntityKind.UNIT, 2, 4, 0, None),
        (EntityKind.UNIT, 2, 4, 2, 5),
        (EntityKind.LEASE, 3, 4, 0, None),
        (EntityKind.LISTING, 4, 4, 0, None),
    ]
    assert {(one.org, one.name, one.sweep, one.started_at, one.at, one.failed) for one in shown} == {
        (ORG, CONNECTION, "s2", STARTED, STARTED, None)
    }
    assert {one.topic for one in emits if one.record in shown} == {topics.INTEGRATION_STATUS}


async def test_once_the_length_of_a_list_is_known_its_pages_are_read_at_once() -> None:
    desk = Desk()
    await desk.step(at(EntityKind.UNIT, offset=2, page=1, total=5))

    assert desk.account.read == [(EntityKind.UNIT, 2), (EntityKind.UNIT, 4)]


async def test_a_second_sweep_of_a_connection_does_not_begin_while_one_is_under_way() -> None:
    desk = Desk()
    await desk.step()

    assert await desk.step(FIRST.model_copy(update={"sweep": "s3"})) == Done(ending=Disposition.IGNORED)
    assert desk.account.read == [(EntityKind.PROPERTY, 0)]


# ---------------------------------------------------------------------------------- what the credentials may not read


async def test_listings_that_may_not_be_read_are_left_out_and_the_sweep_ends() -> None:
    """The result names them; nothing of this kind is fetched by its id, although the rent roll knows of a listing."""
    desk = Desk()
    desk.account.holds(EntityKind.UNIT)
    desk.account.failures[EntityKind.LISTING] = FORBIDDEN
    emits = await desk.whole()
    end, roll = end_of(emits), swept()
    fold(roll, page(EntityKind.LISTING, 6, ListingSnapshot(unit_id=1)))
    *_, last = fold(roll, *pages_of(emits), end)

    assert (end.denied, end.pages) == ((EntityKind.LISTING,), (1, 1, 1, 0))
    asked = [(one.record.kind, one.record.ids) for one in last.emits if isinstance(one.record, RecheckStep)]
    assert asked == [(EntityKind.UNIT, (1,))]
    assert [one.record.denied for one in last.emits if isinstance(one.record, SyncResult)] == [(EntityKind.LISTING,)]
    assert unit_row(roll).listing is not None
    assert desk.may_start()


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        (EntityKind.LISTING, Unauthorized("the key is wrong", 401)),
        (EntityKind.UNIT, Unauthorized("the key may not read units", 403)),
        (EntityKind.PROPERTY, Unauthorized("the key may not read properties", 403)),
    ],
)
async def test_a_sweep_does_not_go_on_without_what_a_rent_roll_needs(kind: EntityKind, failure: Failure) -> None:
    """Nor with a key that is wrong."""
    desk = Desk()
    desk.account.failures[kind] = failure
    found = dead(await desk.step(at(kind)))

    assert found.reason is Reason.UNAUTHORIZED


# ----------------------------------------------------------------------------------------------------------- failures


def retried(times: int) -> Headers:
    return (("rent-attempt", b"%d" % times),)


@pytest.mark.parametrize(
    ("failure", "attempts", "reason"),
    [(Rejected("no such list", 400), 0, Reason.REJECTED), (DOWN, 2, Reason.EXHAUSTED)],
)
async def test_a_sweep_that_dies_leaves_progress_with_the_reason(
    failure: Failure, attempts: int, reason: Reason
) -> None:
    """And makes room for the next one."""
    desk = Desk()
    await desk.step()
    desk.account.failures[EntityKind.UNIT] = failure
    found: Dead = dead(await desk.step(at(EntityKind.UNIT, offset=2, total=5, page=1), retried(attempts)))
    (shown,) = progresses(found.effects)

    assert found.reason is reason
    assert (shown.failed, shown.stage, shown.read, shown.total) == (failure.detail, EntityKind.UNIT, 2, 5)
    assert len(found.effects) == 1
    assert desk.may_start()


async def test_a_sweep_that_waits_for_another_attempt_shows_no_failure() -> None:
    """And no other sweep begins meanwhile."""
    desk = Desk()
    await desk.step()
    desk.account.failures[EntityKind.UNIT] = DOWN
    found = parked(await desk.step(at(EntityKind.UNIT)))

    assert (found.rung.delay, found.attempt, found.effects, found.instead) == ("1m", 1, (), None)
    assert not desk.may_start()


async def test_a_sweep_that_ends_by_an_error_of_the_program_ends_visibly() -> None:
    """Otherwise its progress would never end, and the next sweep would wait for it."""
    desk = Desk()
    await desk.step()
    record = consumed(topics.SWEEPS.name, at(EntityKind.UNIT))
    found = dead(desk.flow.unfinished(record, Dead(Reason.BUG, "ValueError")))
    (shown,) = progresses(list(found.effects))

    assert (found.reason, shown.failed) == (Reason.BUG, "an error of the program: ValueError")
    assert desk.may_start()


async def test_a_step_that_the_runner_holds_comes_back_as_it_is() -> None:
    desk = Desk()
    await desk.step()
    found = parked(desk.flow.unfinished(consumed(topics.SWEEPS.name, at(EntityKind.UNIT)), Held(Reason.BUG, "x")))

    assert (found.attempt, found.effects, found.instead) == (0, (), None)
    assert not desk.may_start()


async def test_a_sweep_whose_account_asks_for_a_pause_is_held() -> None:
    """Without using up an attempt."""
    desk = Desk()
    await desk.step()
    desk.account.failures[EntityKind.UNIT] = Throttled("slow", 300)
    found = held(await desk.step(at(EntityKind.UNIT)))

    assert found.reason is Reason.THROTTLED
    assert found.until == desk.site.clock.now() + timedelta(minutes=5)
    assert not desk.may_start()


async def test_while_the_breaker_is_open_nothing_is_read_and_the_attempt_is_still_to_come() -> None:
    desk = Desk()
    for number in range(FAILURES):
        desk.breakers.ended(Integration(ORG, CONNECTION, 1), number, DOWN, STARTED)
    hold = held(await desk.step())
    await desk.site.clock.advance(30)
    trial = await desk.step()

    assert hold.reason is Reason.CIRCUIT_OPEN
    assert pages_of(list(done(trial)))
    assert desk.account.read == [(EntityKind.PROPERTY, 0)]


async def test_a_trial_that_fails_is_a_hold() -> None:
    desk = Desk()
    desk.account.failures[EntityKind.PROPERTY] = DOWN
    for number in range(FAILURES):
        desk.breakers.ended(Integration(ORG, CONNECTION, 1), number, DOWN, STARTED)
    await desk.site.clock.advance(30)

    assert held(await desk.step()).reason is Reason.CIRCUIT_OPEN
    assert desk.account.read == [(EntityKind.PROPERTY, 0)]


# ----------------------------------------------------------------------------------- an integration that is not there


@pytest.mark.parametrize("how", ["unknown", "a receiver", "disabled"])
async def test_a_sweep_of_an_integration_that_cannot_be_read_ends(how: str) -> None:
    """The schedule starts another one when it can be."""
    desk = Desk()
    following = next(one.record for one in done(await desk.step()) if isinstance(one.record, SweepStep))
    before = len(desk.account.read)
    if how == "disabled":
        desk.site.put(account(enabled=False))
    else:
        desk.site.delete(CONNECTION)
    if how == "a receiver":
        desk.site.put(receiver(name=CONNECTION))

    assert await desk.step(following) == Done(ending=Disposition.IGNORED)
    assert len(desk.account.read) == before
    assert desk.may_start()


async def test_a_sweep_whose_key_is_lost_is_held() -> None:
    desk = Desk()
    desk.site.put(account(key="k9"))
    hold = held(await desk.step())
    desk.site.put(account())

    assert hold.reason is Reason.INTEGRATION_PROBLEM
    assert pages_of(list(done(await desk.step())))


async def test_a_sweep_that_a_person_asks_for_waits_for_the_one_that_is_running() -> None:
    """A scheduled one is left out: the running one brings the same."""
    desk = Desk()
    await desk.step()
    other = FIRST.model_copy(update={"sweep": "s9"})
    asked = held(await desk.step(other.model_copy(update={"asked": True})))

    assert await desk.step(other) == Done(ending=Disposition.IGNORED)
    assert asked.reason is Reason.BUSY


async def test_the_end_of_a_sweep_carries_the_confirmation_of_a_person() -> None:
    desk = Desk()
    confirming = FIRST.model_copy(update={"confirms_removals": True})

    assert end_of(await desk.whole(confirming)).confirms_removals
    assert not end_of(await Desk().whole()).confirms_removals
