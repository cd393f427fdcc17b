"""``schedule_sweeps``: says when an account is to be read whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from connectors.ports import Clock, Connection
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as
from schemas.pms import SweepStep
from schemas.rent_roll import AccountRow, SeenRow
from streams.core.flows import Emit, View
from streams.core.rent_roll import STAGES, account_key, scope, seen_key
from streams.core.sweep import sweep_id
from streams.topology import RENT_ROLL


class ScheduleSweeps:
    """Begins a sweep in every slot of time, unless the rent roll shows that the slot's sweep began already."""

    def __init__(
        self, connections: Sequence[Connection], every: float, home: Callable[[str], int], clock: Clock
    ) -> None:
        """``every``: seconds; ``home``: the partition of an org."""
        self._connections = tuple(one for one in connections if one.enabled)
        self._every = every
        self._home = home
        self._clock = clock
        self._begun: dict[tuple[str, str], str] = {}

    def step(self, views: Mapping[str, View], partition: int) -> Iterator[Emit]:
        """Say the first step of each sweep that is due on this partition."""
        now = self._clock.now()
        slot = sweep_id(now, self._every)
        for one in self._connections:
            key = (one.org, one.name)
            if self._home(one.org) != partition or self._begun.get(key, "") >= slot:
                continue
            self._begun[key] = slot
            if _last(views[RENT_ROLL], one) >= slot:
                continue
            step = SweepStep(org=one.org, connection=one.name, sweep=slot, started_at=now, stage=EntityKind.PROPERTY)
            yield Emit(topics.SWEEPS, one.org, step)


def _last(roll: View, connection: Connection) -> str:
    """Give the newest sweep of a connection that the roll knows of, complete or begun."""
    at = scope(connection.org, connection.name)
    begun = roll.get(seen_key(at, STAGES[0], 0))
    complete = roll.get(account_key(at))
    return max(
        decode_as(SeenRow, begun).sweep if begun else "",
        decode_as(AccountRow, complete).sweep if complete else "",
    )
