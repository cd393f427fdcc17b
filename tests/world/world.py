"""What a story may ask of the world that it is told in, be that in memory or a real cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio
from connectors.buildium.standin.entities import COMMERCIAL
from connectors.ports import Clock
from connectors.rentsync.standin import Listed, RentSyncStandIn
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.pms import SweepStep
from streams.core.flows import Record


class World(Protocol):
    """Buildium, RentSync, a log and some workers."""

    @property
    def portfolio(self) -> Portfolio: ...

    @property
    def buildium(self) -> BuildiumStandIn: ...

    @property
    def rentsync(self) -> RentSyncStandIn: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def picked(self) -> set[int]:
        """Units that a story of this world has taken for itself."""
        ...

    async def tell(self, events: Events, copies: int = 1, *, shuffled: bool = False) -> None:
        """Buildium sends its webhooks, perhaps more than once and in any order."""
        ...

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Let time pass until something holds; returns the seconds that it took. Raises `TimeoutError`.

        On a real cluster ``within`` is a lower bound of its patience, for a machine may be busy.
        """
        ...

    async def rest(self) -> None:
        """Until nothing is under way and nothing waits: all that was said, and all that follows, is dealt with."""
        ...

    async def put(self, topic: str, value: bytes) -> None:
        """Write bytes to a topic, as any process could."""
        ...

    def read(self, topic: str) -> Sequence[Record]:
        """Give all records of a topic."""
        ...

    async def start(self, workers: int = 1) -> None: ...

    async def kill_worker(self) -> None:
        """The oldest worker dies; nobody cleans up after it."""
        ...


@dataclass(slots=True)
class Since:
    """What came since this was made: a world may be shared by many stories."""

    world: World
    accepted: int = field(init=False)
    statuses: int = field(init=False)
    letters: int = field(init=False)
    calls: int = field(init=False)

    def __post_init__(self) -> None:
        self.accepted = len(self.world.rentsync.accepted)
        self.statuses = len(self.world.rentsync.statuses)
        self.letters = len(self.world.read(topics.DEAD_LETTERS.name))
        self.calls = len(self.world.buildium.calls)

    def batches(self) -> list[dict[int, dict[str, object]]]:
        """What was accepted: the units of each batch, by their ids."""
        new = self.world.rentsync.accepted[self.accepted :]
        return [{int(unit["unit_id"]): dict(unit) for unit in one.units} for one in new]

    def answers(self) -> list[int]:
        return self.world.rentsync.statuses[self.statuses :]

    def dead(self) -> list[Record]:
        """Dead letters, in no order."""
        found = sorted(self.world.read(topics.DEAD_LETTERS.name), key=lambda one: (one.timestamp, one.offset))
        return found[self.letters :]

    def asked(self, path: str) -> int:
        """How many calls ended with this path. (Buildium's stand-in remembers the last ten thousand.)"""
        return sum(call.path.endswith(path) for call in list(self.world.buildium.calls)[self.calls :])


def pick(world: World, wanted: str | Callable[[Listed], bool]) -> int:
    """Take a unit that no other story of this world touches, by its status or by a rule."""
    rule: Callable[[Listed], bool]
    rule = (lambda one: one.status_name == wanted) if isinstance(wanted, str) else wanted
    for unit, one in sorted(world.rentsync.state.items()):
        if unit not in world.picked and rule(one):
            world.picked.add(unit)
            return unit
    raise LookupError(f"no unit of this world is left for a story that wants {wanted}")


def live_lease(world: World, unit: int) -> int | None:
    """The one lease of a unit that is simply let: no notice was given and nobody is to come."""
    portfolio = world.portfolio
    live = [
        lease
        for lease in portfolio.leases_of.get(unit, ())
        if portfolio.lease_status(portfolio.leases[lease]) != "Past"
    ]
    plain = all(one.moves_out_on is None for lease in live for one in portfolio.leases[lease].occupants)
    return live[0] if len(live) == 1 and plain else None


def pick_let(world: World) -> int:
    """A unit that is simply let."""
    return pick(world, lambda one: one.status_name == "Rented" and live_lease(world, one.unit_id) is not None)


def rent_of(world: World, unit: int) -> float:
    """What is asked for a unit in Buildium: in its listing, else of itself."""
    portfolio = world.portfolio
    if unit in portfolio.listings:
        return float(portfolio.listings[unit].rent)
    return float(portfolio.units[unit].market_rent or 0)


def rent_told(world: World, unit: int) -> float | None:
    """What the receiver lists."""
    return world.rentsync.state[unit].base_rent


def receiver_is_equal(world: World) -> bool:
    """Whether the receiver lists every residential unit, no other, and each for the rent that Buildium says."""
    portfolio, state = world.portfolio, world.rentsync.state
    listed = {unit for unit, one in state.items() if one.status_name != "Removed"}
    there = {
        number
        for number, unit in portfolio.units.items()
        if portfolio.properties[unit.property_id].sub_type not in COMMERCIAL
    }
    return listed == there and all(state[unit].base_rent == rent_of(world, unit) for unit in there)


async def sweep(world: World) -> None:
    """Begin a sweep now, whatever the schedule says."""
    now = world.clock.now()
    await world.put(
        topics.SWEEPS.name,
        encode(
            SweepStep(
                org="default",
                connection="buildium",
                sweep=now.strftime("%Y%m%dT%H%M%SZ"),
                started_at=now,
                stage=EntityKind.PROPERTY,
            )
        ),
    )
