"""One call answers all requests for an entity; and what the outage of one org costs the others."""

from dataclasses import dataclass, field
from datetime import timedelta

from connectors.ports import Clock, Failure, Fetched, Gone, Priority, Rejected, Unauthorized, Unavailable
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as, encode
from schemas.pms import FetchOrigin, FetchRequest
from schemas.rent_roll import Page, UnitSnapshot
from streams.backends.ports import ConsumedRecord
from streams.core.breaker import FAILURES, Breakers
from streams.core.flows import Disposition, ProducerRecord
from streams.core.observer import NullObserver
from streams.core.retry import Done, Reason, ladder
from streams.core.sequence import FetchSequence
from streams.flows.fetch_changes import FetchChanges
from streams.runners.call import Answer, Call, CallFlow
from streams.runners.intake import Bounds
from tests.streams.core.rent_roll.rolls import building, lease, unit
from tests.streams.directory.systems import Source
from tests.streams.flows.parts import CONNECTION, NOW, ORG, Site, account, consumed, done, held, receiver
from tests.streams.runners.stage import Stage, stage

RUNGS = ladder("1m,2m,5m")
HOLDS = 100


def flow_of(site: Site) -> FetchChanges:
    return FetchChanges(site.clients, FetchSequence(), site.clock, Breakers(NullObserver()))


def request(entity: int | None = 1, org: str = ORG, minutes: int = 0, ignored: str | None = None) -> FetchRequest:
    return FetchRequest(
        org=org,
        connection=CONNECTION,
        origin=FetchOrigin.WEBHOOK,
        event="Unit.Updated",
        kind=EntityKind.UNIT,
        entity=entity,
        received_at=NOW + timedelta(minutes=minutes),
        ignored=ignored,
    )


def taken(*requests: FetchRequest) -> list[ConsumedRecord]:
    return [consumed(topics.WEBHOOKS.name, one) for one in requests]


class Desk:
    """The flow with the account of one org."""

    def __init__(self) -> None:
        self.site = Site(account(), receiver())
        self.account = self.site.account()
        self.account.holds(EntityKind.UNIT, unit())
        self.flow = flow_of(self.site)

    async def fetch(self, *requests: FetchRequest) -> Answer:
        return await self.flow.perform(taken(*(requests or (request(),))))


# ---------------------------------------------------------------------------------------------------------- one entity


async def test_one_call_answers_all_requests_for_an_entity() -> None:
    """With the moment of the oldest, and a sequence that a new owner finds in a header."""
    desk = Desk()
    (emit,) = done(await desk.fetch(request(minutes=2), request(minutes=1), request(minutes=3)))
    page = emit.record

    assert desk.account.fetched == [(EntityKind.UNIT, 1)]
    assert isinstance(page, Page)
    assert (emit.topic, page.kind, page.sweep, page.seen_at) == (
        topics.CHANGES,
        EntityKind.UNIT,
        None,
        NOW + timedelta(minutes=1),
    )
    assert [decode_as(UnitSnapshot, one.body) for one in page.items] == [unit()]
    assert emit.headers == (("rent-seq", str(page.seq).encode()),)


async def test_an_entity_that_the_pms_does_not_have_is_an_item_without_a_body() -> None:
    (emit,) = done(await Desk().fetch(request(7)))

    assert isinstance(emit.record, Page)
    assert [(one.id, one.body) for one in emit.record.items] == [(7, None)]


async def test_what_needs_no_call_is_ignored() -> None:
    """A webhook that a rule ignores, and one that names no entity."""
    desk = Desk()
    answers = [await desk.fetch(request(ignored="not of interest")), await desk.fetch(request(entity=None))]

    assert answers == [Done(ending=Disposition.IGNORED)] * 2
    assert desk.account.fetched == []


async def test_a_refusal_is_an_answer_of_the_port() -> None:
    desk = Desk()
    desk.account.failures[EntityKind.UNIT] = refusal = Rejected("no", 400)

    assert await desk.fetch() == refusal


def test_requests_for_one_entity_of_one_connection_wait_for_each_other() -> None:
    flow = flow_of(Site(account()))
    keys = [flow.key(one) for one in taken(request(), request(minutes=1), request(2), request(org="other"))]

    assert keys[0] == keys[1] == (ORG, CONNECTION, EntityKind.UNIT, 1)
    assert len(set(keys)) == 3


# -------------------------------------------------------------------------------- an integration that cannot be called


async def test_a_request_of_an_unknown_integration_is_held() -> None:
    """This process may not have read it yet, or it is created again: the request is kept, with the reason."""
    desk = Desk()
    desk.site.delete(CONNECTION)
    hold = held(await desk.fetch())
    desk.site.put(account())

    assert (hold.reason, hold.until) == (Reason.UNKNOWN_INTEGRATION, None)
    assert hold.detail == "default has no integration buildium (any more): create it, or name another"
    assert len(done(await desk.fetch())) == 1


async def test_a_request_that_names_a_receiver_is_held() -> None:
    hold = held(await Desk().fetch(request().model_copy(update={"connection": "rentsync"})))

    assert hold.reason is Reason.UNKNOWN_INTEGRATION
    assert "is a sink, not a source" in hold.detail


async def test_a_request_of_a_disabled_integration_is_ignored() -> None:
    """Once it is enabled, a sweep finds what happened meanwhile."""
    desk = Desk()
    desk.site.put(account(enabled=False))

    assert await desk.fetch() == Done(ending=Disposition.IGNORED)
    assert desk.account.fetched == []


async def test_a_request_of_an_integration_whose_key_is_lost_is_held() -> None:
    desk = Desk()
    desk.site.put(account(key="k9"))
    hold = held(await desk.fetch())

    assert hold.reason is Reason.INTEGRATION_PROBLEM
    assert "put the key with the id k9 back" in hold.detail


async def test_another_version_of_the_configuration_begins_with_a_closed_breaker() -> None:
    desk = Desk()
    desk.account.failures[EntityKind.UNIT] = Unavailable("down", 503)
    for entity in range(FAILURES):
        await desk.fetch(request(entity))
    open_ = held(await desk.fetch())
    desk.account.failures.clear()
    desk.site.put(account(version=2))

    assert open_.reason is Reason.CIRCUIT_OPEN
    assert len(done(await desk.fetch())) == 1


# -------------------------------------------------------------------------------------------- two orgs, one partition


@dataclass
class Away(Source):
    """A PMS that does not answer in time."""

    clock: Clock = field(kw_only=True)
    timeout: float = 30.0
    calls: int = 0

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        self.calls += 1
        await self.clock.sleep(self.timeout)
        return Unavailable("no answer in time")


@dataclass
class Here(Source):
    """A PMS that answers at once."""

    calls: int = 0

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        self.calls += 1
        return Fetched((Gone(kind, entity),))


def reading(site: Site) -> CallFlow:
    flow = flow_of(site)
    return CallFlow(
        "fetch_changes",
        (topics.WEBHOOKS.name,),
        flow.key,
        flow.perform,
        group_of=lambda key: key[:2],
        max_in_flight=64,
        max_in_flight_per_integration=12,
    )


def write(world: Stage, org: str, *entities: int) -> None:
    for entity in entities:
        webhook = request(entity, org)
        world.broker.append(ProducerRecord(topics.WEBHOOKS.name, org.encode(), encode(webhook)), 0)


async def test_the_backlog_of_an_org_whose_pms_does_not_answer_holds_up_the_others_for_one_time_out() -> None:
    """It is more than is held in memory. Once the breaker is open all of it waits on the rung, and no call is made."""
    async with stage() as world:
        site = Site(account("away"), account("here"), clock=world.clock)
        away, here = Away("away", clock=world.clock), Here("here")
        site.accounts |= {"away": away, "here": here}
        flow = reading(site)
        bounds = Bounds(hold_records=HOLDS, fetch_records=HOLDS)
        await world.start(lambda log: Call("g", [flow], log, world.clock, RUNGS, bounds=bounds))
        write(world, "away", *range(HOLDS * 5))
        write(world, "here", 1)
        await world.clock.advance(30)
        write(world, "away", *range(HOLDS * 5, HOLDS * 10))
        write(world, "here", 2)
        await world.clock.advance(0)
        assert here.calls == 2
        await world.clock.advance(29)

        # What begins between the first failure and the opening of the breaker is in flight until its end.
        assert away.calls == 12 + FAILURES - 1
        await world.clock.advance(1)
        assert len(world.texts("retry.1m")) == HOLDS * 10
        assert world.texts("dead-letters") == []
        assert world.broker.lag("g") == 0


async def test_the_entities_of_a_property_are_read_with_it_if_one_of_its_requests_asks_for_them() -> None:
    """Each kind is one page, marked as complete, also if there are none."""
    desk = Desk()
    desk.account.holds(EntityKind.PROPERTY, building(10))
    desk.account.holds(EntityKind.UNIT, unit(1))
    desk.account.holds(EntityKind.LEASE, lease(100), lease(101, unit_id=2))
    plain = request(10).model_copy(update={"kind": EntityKind.PROPERTY})
    with_leases = plain.model_copy(update={"also": (EntityKind.LEASE,)})
    with_more = plain.model_copy(update={"also": (EntityKind.LISTING, EntityKind.UNIT)})
    found = done(await desk.flow.perform(taken(plain, with_leases, with_more, plain)))
    pages = [one.record for one in found if isinstance(one.record, Page)]

    assert [(one.kind, [item.id for item in one.items], one.whole_of) for one in pages] == [
        (EntityKind.PROPERTY, [10], None),
        (EntityKind.UNIT, [1], 10),
        (EntityKind.LEASE, [100, 101], 10),
        (EntityKind.LISTING, [], 10),
    ]
    assert [kind for kind, _ in desk.account.fetched] == [one.kind for one in pages]
    assert {number for _, number in desk.account.fetched} == {10}


async def test_listings_of_a_property_that_may_not_be_read_are_left_out() -> None:
    desk = Desk()
    desk.account.holds(EntityKind.PROPERTY, building(10))
    desk.account.failures[EntityKind.LISTING] = Unauthorized("the key may not read listings", 403)
    asked = request(10).model_copy(update={"kind": EntityKind.PROPERTY, "also": (EntityKind.LISTING, EntityKind.LEASE)})
    found = done(await desk.flow.perform(taken(asked)))

    assert [one.record.kind for one in found if isinstance(one.record, Page)] == [EntityKind.PROPERTY, EntityKind.LEASE]


async def test_a_property_whose_leases_cannot_be_read_is_asked_for_again() -> None:
    desk = Desk()
    desk.account.holds(EntityKind.PROPERTY, building(10))
    desk.account.failures[EntityKind.LEASE] = Unavailable("down", 503)
    asked = request(10).model_copy(update={"kind": EntityKind.PROPERTY, "also": (EntityKind.LEASE,)})

    assert await desk.flow.perform(taken(asked)) == Unavailable("down", 503)
