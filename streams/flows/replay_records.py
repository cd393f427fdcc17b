"""``replay_records``: has the next records of an approved plan processed again; what is next travels as a record."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from connectors.ports import Clock
from schemas import topics
from schemas.codec import decode_as
from schemas.replay import ReplayOrder, ReplayPlan, ReplayProgress, ReplayStep, ReplayWish
from streams.backends.ports import Backend, BackendError
from streams.core.flows import Disposition, Emit, Record
from streams.core.replays import Chains, Left, ReplayState, advanced, again, next_places
from streams.core.retry import Dead, Done, Held, Outcome
from streams.replays.book import Replay, ReplayBook

log = logging.getLogger("streams.flows")

MOST_WAITING: Final = 20
"""Replayed records that may wait for their turn behind live ones before a replay rests."""

LOOK_SECONDS: Final = 0.1
"""Seconds between two looks whether they are fewer."""

PATIENCE: Final = 5.0
"""Seconds after which a step that rests is written again, so that the replay can be paused, or get another owner."""

Waiting = Callable[[], int]
"""Returns how many replayed records wait at this worker behind live ones."""


@dataclass(frozen=True, slots=True)
class ReplayRecords:
    """One step of a replay: its records, then the progress, and the record of what comes after it.

    After a crash a step may be made again; a record that is processed twice changes nothing the second time.
    """

    book: ReplayBook
    source: Backend
    clock: Clock
    chains: Chains
    waiting: Waiting

    def key(self, record: Record) -> tuple[str, str]:
        """Return the replay: its steps wait for each other. Raise `schemas.codec.DecodeError`."""
        step = decode_as(ReplayStep, record.value)
        return step.org, f"replay {step.id}"

    async def perform(self, records: Sequence[Record]) -> Done:
        """Make a step, unless a person has paused or cancelled the replay."""
        step = decode_as(ReplayStep, records[-1].value)
        replay = self._running(step)
        if replay is None:
            return Done(ending=Disposition.IGNORED)
        if not self.chains.admits(step):
            return Done(ending=Disposition.DUPLICATE)
        places = next_places(replay.plan, step.progress.position)
        if places is None:
            return Done(self._ended(replay.plan, step.progress))
        if not await self._has_turn(len(places[1]) / replay.plan.rate):
            return Done(self._following(step.progress.model_copy(update={"at": self.clock.now()})))
        return await self._made(step, replay.plan, *places)

    async def _made(self, step: ReplayStep, plan: ReplayPlan, partition: int, offsets: Sequence[int]) -> Done:
        """Read the records of a step; return what has them processed again, and what follows."""
        if self._running(step) is None:  # a person has stopped it meanwhile
            return Done(ending=Disposition.IGNORED)
        try:
            found = await self.source.read(plan.source, partition, offsets)
        except BackendError as error:
            log.warning("Replay %s of %s rests: %s", step.id, step.org, error)
            return Done(ending=Disposition.IGNORED)
        results = [again(found.get(offset), step.org, step.id) for offset in offsets]
        progress = advanced(step.progress, results, self.clock.now())
        self.chains.made(progress)
        written = tuple(one for one in results if not isinstance(one, Left))
        ends = next_places(plan, progress.position) is None
        return Done((*written, *(self._ended(plan, progress) if ends else self._following(progress))))

    def unfinished(self, record: Record, why: Dead | Held) -> Outcome:
        """Return the outcome of a step that the runner gives up or holds: a replay that cannot go on is paused.

        Raise `schemas.codec.DecodeError`.
        """
        step = decode_as(ReplayStep, record.value)
        self.chains.failed(step)
        if isinstance(why, Held):  # a scan asks for it again
            return Done(ending=Disposition.IGNORED)
        order = ReplayOrder(
            org=step.org, id=step.id, wish=ReplayWish.PAUSE, at=self.clock.now(), by=f"worker, {why.reason}"
        )
        return replace(why, effects=(Emit(topics.REPLAY_STATES, step.org, order),))

    def _running(self, step: ReplayStep) -> Replay | None:
        found = self.book.get(step.org, step.id)
        return found if found is not None and found.state is ReplayState.RUNNING else None

    async def _has_turn(self, seconds: float) -> bool:
        """Wait as long as the records of a step take at the replay's rate, and until few of those before wait."""
        await self.clock.sleep(seconds)
        began = self.clock.monotonic()
        while self.waiting() > MOST_WAITING:
            if self.clock.monotonic() - began > PATIENCE:
                return False
            await self.clock.sleep(LOOK_SECONDS)
        return True

    @staticmethod
    def _following(progress: ReplayProgress) -> tuple[Emit, ...]:
        step = ReplayStep(org=progress.org, id=progress.id, progress=progress)
        return Emit(topics.REPLAY_STATES, progress.org, progress), Emit(topics.REPLAY_STEPS, progress.org, step)

    def _ended(self, plan: ReplayPlan, progress: ReplayProgress) -> tuple[Emit, ...]:
        """Return the end of a replay; its plan keeps what people look at."""
        now = self.clock.now()
        ended = progress.model_copy(update={"at": now, "ended_at": now})
        kept = plan.model_copy(update={"parts": ()})
        return Emit(topics.REPLAY_STATES, plan.org, ended), Emit(topics.REPLAY_STATES, plan.org, kept)
