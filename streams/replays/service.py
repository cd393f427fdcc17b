"""Plans and orders of replays, for the API and the command line; the worker carries them out."""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from connectors.ports import Clock
from schemas import topics
from schemas.codec import encode
from schemas.replay import ReplayOrder, ReplayPlan, ReplayWish
from streams.backends.ports import NotDurable, TooLarge
from streams.core.replays import POSSIBLE, ReplayState
from streams.directory.model import Conflict, NotFound, Unavailable
from streams.directory.service import Follower, Writer
from streams.replays.book import Replay, ReplayBook
from streams.replays.planner import Planner, ReplayRequest
from streams.runners.global_ import within

READ_BACK_WITHIN: Final = 5.0
"""Seconds until the own book has to have applied what was written."""


class Reading(Follower, Protocol):
    """Brings records to the book (`streams.runners.global_`)."""

    async def read_to_end(self) -> bool:
        """Return true once everything is applied that was written before the call; false if that is not possible."""
        ...


def replay_id(at: datetime, unique: str) -> str:
    """Return the id of a replay: when it was planned, and what makes it unique."""
    return f"{at:%Y%m%dT%H%M%SZ}-{unique}"


class Replays:
    """The replays of all orgs."""

    def __init__(
        self,
        book: ReplayBook,
        follower: Reading,
        writer: Writer,
        planner: Planner,
        clock: Clock,
        unique: Callable[[], str] = lambda: uuid.uuid4().hex[:8],
    ) -> None:
        self._book = book
        self._follower = follower
        self._writer = writer
        self._planner = planner
        self._clock = clock
        self._unique = unique

    async def plan(self, request: ReplayRequest, by: str, *, store: bool = True) -> Replay:
        """Return what a replay would do; stored, it can be approved. Nothing is replayed before.

        Raise `Invalid` and `Unavailable`.
        """
        self._ready()
        plan = await self._planner.plan(request, replay_id(self._clock.now(), self._unique()), by)
        if store:
            await self._write(plan)
        return Replay(plan)

    async def order(self, org: str, replay: str, wish: ReplayWish, by: str) -> Replay:
        """Have a replay begin, go on, pause, or end without the rest. Return its state.

        Raise `NotFound`, `Conflict` if that is not possible any more, and `Unavailable`.
        """
        one = await self.get(org, replay)
        if wish not in POSSIBLE[one.state]:
            raise Conflict(f"replay {replay} is {one.state.value} already")
        wanted = {ReplayWish.RUN: ReplayState.RUNNING, ReplayWish.PAUSE: ReplayState.PAUSED}
        if one.state is wanted.get(wish, ReplayState.CANCELLED):
            return one
        await self._write(ReplayOrder(org=org, id=replay, wish=wish, at=self._clock.now(), by=by))
        return await self.get(org, replay)

    async def get(self, org: str, replay: str) -> Replay:
        """Return a replay. Raise `NotFound` and `Unavailable`."""
        self._ready()
        found = self._book.get(org, replay)
        if found is None:
            if not await self._follower.read_to_end():
                raise Unavailable("what was planned by another process cannot be read at the moment")
            found = self._book.get(org, replay)
        if found is None:
            raise NotFound(f"The org {org} has no replay {replay!r}.")
        return found

    def list(self, org: str) -> Sequence[Replay]:
        """Return the replays of an org, the newest first. Raise `Unavailable`."""
        self._ready()
        return self._book.of(org)

    def _ready(self) -> None:
        if not self._book.caught_up:
            raise Unavailable("the replays are being read")

    async def _write(self, record: ReplayPlan | ReplayOrder) -> None:
        """Write a record, and return once the own book has applied it. Raise `Unavailable`."""
        topic, value = topics.REPLAY_STATES, encode(record)
        key = topic.key_of(record)
        with self._follower.expecting(topic.name, key, value) as applied:
            try:
                await self._writer.write(topic.name, key, record.org, value)
            except NotDurable as error:
                raise Unavailable(f"Kafka does not confirm the request ({error}): try again") from error
            except TooLarge as error:
                raise Conflict(
                    f"the plan has too many records ({error}): narrow it down, for example by time"
                ) from error
            try:
                await within(self._clock, applied, READ_BACK_WITHIN)
            except TimeoutError:
                raise Unavailable(
                    f"the request is written, but it was not read back within {READ_BACK_WITHIN:g} s: look again"
                ) from None
