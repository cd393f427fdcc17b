"""Two orgs on one partition: what the outage of one costs the other."""

from dataclasses import dataclass, field

from connectors.ports import Clock, Connection, Failure, Fetched, Gone, PageOf, Priority, Unavailable
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.pms import FetchOrigin, FetchRequest
from streams.core.breaker import FAILURES, Breakers
from streams.core.flows import ProducerRecord
from streams.core.observer import NullObserver
from streams.core.retry import ladder
from streams.core.sequence import FetchSequence
from streams.flows.fetch_changes import FetchChanges
from streams.runners.call import Call, CallFlow
from streams.runners.intake import Bounds
from tests.streams.runners.stage import Stage, stage

RUNGS = ladder("1m,2m,5m")
HOLDS = 100


@dataclass
class Source:
    """A PMS that answers at once, or after its time-out."""

    clock: Clock
    timeout: float | None = None
    calls: int = 0
    page_size: int = field(default=100, init=False)

    async def fetch(self, kind: EntityKind, entity: int, priority: Priority = Priority.WEBHOOK) -> Fetched | Failure:
        self.calls += 1
        if self.timeout is None:
            return Fetched((Gone(kind, entity),))
        await self.clock.sleep(self.timeout)
        return Unavailable("no answer in time")

    async def page(self, kind: EntityKind, offset: int, priority: Priority = Priority.SWEEP) -> PageOf | Failure:
        raise NotImplementedError

    async def aclose(self) -> None: ...


def reading(world: Stage, sources: dict[str, Source]) -> CallFlow:
    flow = FetchChanges(
        {(org, "buildium"): source for org, source in sources.items()},
        {(org, "buildium"): Connection(org, "buildium", "buildium", enabled=True, timezone="UTC") for org in sources},
        FetchSequence(),
        world.clock,
        Breakers(NullObserver()),
    )
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
        webhook = FetchRequest(
            org=org,
            connection="buildium",
            origin=FetchOrigin.WEBHOOK,
            event="Unit.Updated",
            kind=EntityKind.UNIT,
            entity=entity,
            received_at=world.clock.now(),
        )
        world.broker.append(ProducerRecord(topics.WEBHOOKS.name, org.encode(), encode(webhook)), 0)


async def test_the_backlog_of_an_org_whose_pms_does_not_answer_holds_up_the_others_for_one_time_out() -> None:
    """It is more than is held in memory. Once the breaker is open all of it waits on the rung, and no call is made."""
    async with stage() as world:
        sources = {"away": Source(world.clock, timeout=30), "here": Source(world.clock)}
        flow = reading(world, sources)
        bounds = Bounds(hold_records=HOLDS, fetch_records=HOLDS)
        await world.start(lambda log: Call("g", [flow], log, world.clock, RUNGS, bounds=bounds))
        write(world, "away", *range(HOLDS * 5))
        write(world, "here", 1)
        await world.clock.advance(30)
        write(world, "away", *range(HOLDS * 5, HOLDS * 10))
        write(world, "here", 2)
        await world.clock.advance(0)
        assert sources["here"].calls == 2
        await world.clock.advance(29)

        # Those that begin between the first failure and the last before the breaker opens are in flight until their end.
        assert sources["away"].calls == 12 + FAILURES - 1
        await world.clock.advance(1)
        assert len(world.texts("retry.1m")) == HOLDS * 10
        assert world.texts("dead-letters") == []
        assert world.broker.lag("g") == 0
