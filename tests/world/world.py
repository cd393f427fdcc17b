"""The interface of a test world, in memory or on a real cluster, and helpers for stories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio
from connectors.buildium.standin.entities import COMMERCIAL
from connectors.ports import Clock
from connectors.rentsync.standin import Listed, RentSyncStandIn
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import encode
from schemas.pms import SweepStep
from streams.core.flows import Record


class Account(Protocol):
    """An account in Buildium, and the receiver that lists its units."""

    @property
    def portfolio(self) -> Portfolio: ...

    @property
    def buildium(self) -> BuildiumStandIn: ...

    @property
    def rentsync(self) -> RentSyncStandIn: ...


class World(Account, Protocol):
    """The stand-ins of Buildium and RentSync, a broker, and some workers."""

    @property
    def clock(self) -> Clock: ...

    @property
    def picked(self) -> set[int]:
        """Ids of the units that a story of this world has reserved with `pick`."""
        ...

    async def send_webhooks(self, events: Events, copies: int = 1, *, shuffled: bool = False) -> None:
        """Send the webhooks of these events, ``copies`` times each and, if ``shuffled``, in random order."""
        ...

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Wait until ``holds`` is true; return the seconds that it took. Raise `TimeoutError` after ``within`` seconds.

        A real cluster may wait longer than ``within`` seconds, because the machine can be busy.
        """
        ...

    async def rest(self) -> None:
        """Wait until every record is processed, including parked records and all records that follow from them."""
        ...

    async def put(
        self, topic: str, value: bytes | None, *, key: bytes | None = b"default", partition: int | None = None
    ) -> None:
        """Write a record to a topic: to the partition of its key, of the default org without one."""
        ...

    def read(self, topic: str) -> Sequence[Record]:
        """Return all records of a topic."""
        ...

    async def ask(
        self, method: str, path: str, body: object = None, *, org: str = "default", key: str | None = None
    ) -> httpx.Response:
        """Call the API with a token of an org; ``body`` is bytes as they are, or anything that becomes JSON.

        ``key`` is an idempotency key.
        """
        ...

    async def start(self, workers: int = 1) -> None:
        """Start some more workers."""
        ...

    async def kill_worker(self) -> None:
        """Kill the oldest worker without a graceful shutdown."""
        ...


@dataclass(slots=True)
class Since:
    """The activity of a world since this object was created (many stories share one world)."""

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
        """Return the units of each accepted batch, by their ids."""
        new = self.world.rentsync.accepted[self.accepted :]
        return [{int(unit["unit_id"]): dict(unit) for unit in batch.units} for batch in new]

    def answers(self) -> list[int]:
        """Return the HTTP statuses that RentSync answered; 0 is a dropped connection."""
        return self.world.rentsync.statuses[self.statuses :]

    def dead(self) -> list[Record]:
        """Return the dead letters of all partitions, by time."""
        letters = sorted(
            self.world.read(topics.DEAD_LETTERS.name), key=lambda letter: (letter.timestamp, letter.offset)
        )
        return letters[self.letters :]

    def asked(self, path: str) -> int:
        """Return the number of Buildium calls whose path ends with ``path`` (of the last ten thousand)."""
        return sum(call.path.endswith(path) for call in list(self.world.buildium.calls)[self.calls :])


def pick(world: World, wanted: str | Callable[[Listed], bool]) -> int:
    """Reserve a unit for one story, by its listed status or by a predicate. Raise `LookupError` if none is left."""
    matches: Callable[[Listed], bool]
    matches = (lambda listed: listed.status_name == wanted) if isinstance(wanted, str) else wanted
    for unit, listed in sorted(world.rentsync.state.items()):
        if unit not in world.picked and matches(listed):
            world.picked.add(unit)
            return unit
    raise LookupError(f"no free unit of this world matches {wanted}")


def current_lease(account: Account, unit: int) -> int | None:
    """Return the only current or future lease of a unit, or None if it has several or a notice to vacate."""
    portfolio = account.portfolio
    leases = [
        lease
        for lease in portfolio.leases_of.get(unit, ())
        if portfolio.lease_status(portfolio.leases[lease]) != "Past"
    ]
    no_notice = all(occupant.moves_out_on is None for lease in leases for occupant in portfolio.leases[lease].occupants)
    return leases[0] if len(leases) == 1 and no_notice else None


def pick_rented(world: World) -> int:
    """Reserve a rented unit with one lease and without a notice to vacate."""
    return pick(
        world, lambda listed: listed.status_name == "Rented" and current_lease(world, listed.unit_id) is not None
    )


def asking_rent(account: Account, unit: int) -> float:
    """Return the rent of a unit in Buildium: that of its listing, else its market rent."""
    portfolio = account.portfolio
    if unit in portfolio.listings:
        return float(portfolio.listings[unit].rent)
    return float(portfolio.units[unit].market_rent or 0)


def listed_rent(account: Account, unit: int) -> float | None:
    """Return the rent of a unit at the receiver."""
    return account.rentsync.state[unit].base_rent


def receiver_matches(account: Account) -> bool:
    """Return whether the receiver lists exactly the residential units of Buildium, each with its asking rent."""
    state = account.rentsync.state
    listed = {number for number, unit in state.items() if unit.status_name != "Removed"}
    units = residential(account)
    return listed == units and all(state[unit].base_rent == asking_rent(account, unit) for unit in units)


def residential(account: Account) -> set[int]:
    """Return the ids of the units that a receiver gets."""
    properties = account.portfolio.properties
    return {
        number
        for number, unit in account.portfolio.units.items()
        if properties[unit.property_id].sub_type not in COMMERCIAL
    }


async def start_sweep(world: World) -> None:
    """Start a sweep now, independent of the schedule."""
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
