"""What a sweep missed is fetched by its id, some entities at a time."""

from dataclasses import dataclass, field

import pytest

from connectors.ports import Failure, Unauthorized
from schemas import topics
from schemas.base import EntityKind
from schemas.pms import RecheckStep
from schemas.rent_roll import Page
from streams.core.breaker import FAILURES, Breakers, Integration
from streams.core.flows import Disposition
from streams.core.observer import NullObserver
from streams.core.retry import Done
from streams.core.sequence import FetchSequence
from streams.flows.recheck_missed import AT_ONCE, RecheckMissed
from tests.streams.core.rent_roll.rolls import unit
from tests.streams.flows.parts import CONNECTION, DOWN, NOW, ORG, Account, Site, account, consumed, done

UNIT = EntityKind.UNIT


def step(*ids: int, sweep: str = "s1", guarded: bool = False) -> RecheckStep:
    return RecheckStep(org=ORG, connection=CONNECTION, sweep=sweep, kind=UNIT, ids=ids, guarded=guarded)


@dataclass
class Desk:
    """The flow with an account that has the units 1 and 3."""

    site: Site = field(default_factory=lambda: Site(account()))

    def __post_init__(self) -> None:
        self.account = self.site.account()
        self.account.holds(UNIT, unit(1), unit(3))
        self.breakers = Breakers(NullObserver())
        self.flow = RecheckMissed(self.site.clients, FetchSequence(), self.site.clock, self.breakers)

    async def answer(self, *steps: RecheckStep) -> Done:
        return await self.flow.perform([consumed(topics.RECHECKS.name, one) for one in steps])

    async def check(self, *steps: RecheckStep) -> tuple[Page, list[RecheckStep]]:
        """Return the page that a step brought, and what is left."""
        effects = done(await self.answer(*steps))
        (page,) = [one.record for one in effects if isinstance(one.record, Page)]
        return page, [one.record for one in effects if isinstance(one.record, RecheckStep)]


@pytest.mark.parametrize("guarded", [False, True])
async def test_each_entity_is_fetched_and_the_answers_are_one_page(guarded: bool) -> None:
    page, left = await Desk().check(step(1, 2, 3, guarded=guarded))

    assert [(item.id, item.body is not None) for item in page.items] == [(1, True), (2, False), (3, True)]
    assert (page.kind, page.sweep, page.guarded) == (UNIT, None, guarded)
    assert left == []


async def test_the_sequence_of_the_page_is_where_a_new_owner_finds_it() -> None:
    (written,) = done(await Desk().answer(step(1)))
    assert isinstance(written.record, Page)
    assert dict(written.headers)["rent-seq"] == str(written.record.seq).encode()


async def test_what_is_left_travels_as_a_record_until_all_is_fetched() -> None:
    desk, ids = Desk(), tuple(range(1, 2 * AT_ONCE + 6))
    following, sizes = [step(*ids, guarded=True)], []
    while following:
        page, following = await desk.check(*following)
        sizes.append(len(page.items))

    assert sizes == [AT_ONCE, AT_ONCE, 5]
    assert [number for _, number in desk.account.fetched] == list(ids)


async def test_a_step_of_a_newer_sweep_replaces_those_of_older_ones() -> None:
    """And of one sweep the step that is furthest: a crash may have repeated another one."""
    desk = Desk()
    old, new, further = step(7, 8, sweep="s1"), step(1, 2, 3, sweep="s2"), step(3, sweep="s2")
    page, _ = await desk.check(new, further, old)

    assert [item.id for item in page.items] == [3]
    assert desk.flow.key(consumed(topics.RECHECKS.name, old)) == desk.flow.key(consumed(topics.RECHECKS.name, new))


@pytest.mark.parametrize("failure", [DOWN, Unauthorized("the key may not read units", 403)])
async def test_a_failure_ends_the_steps_without_a_dead_letter(failure: Failure) -> None:
    """The end of the next sweep asks for what is still missing."""
    desk = Desk()
    desk.account.failures[UNIT] = failure
    assert await desk.answer(step(*range(1, 30))) == Done(ending=Disposition.IGNORED)


class Moody(Account):
    """Answers for odd ids only."""

    async def fetch(self, kind: EntityKind, entity: int, *more: object) -> object:  # type: ignore[override]
        return await super().fetch(kind, entity) if entity % 2 else DOWN


async def test_what_was_answered_before_a_failure_is_kept() -> None:
    desk = Desk()
    moody = Moody(ORG)
    moody.holds(UNIT, unit(1), unit(3))
    desk.site.accounts[ORG] = moody
    page, left = await desk.check(step(*range(1, 30)))

    assert [item.id for item in page.items] == [1, 3, 5, 7, 9]
    assert left == []


async def test_an_account_that_cannot_be_called_is_not_called() -> None:
    """It is disabled or unknown, or its breaker is open."""
    desk = Desk()
    for number in range(FAILURES):
        desk.breakers.ended(Integration(ORG, CONNECTION, desk.site.clients.version(ORG, CONNECTION)), number, DOWN, NOW)
    open_ = await desk.answer(step(1))
    desk.site.put(account(enabled=False))
    disabled = await desk.answer(step(1))
    desk.site.delete(CONNECTION)
    unknown = await desk.answer(step(1))

    assert [open_, disabled, unknown] == [Done(ending=Disposition.IGNORED)] * 3
    assert desk.account.fetched == []
