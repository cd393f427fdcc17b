"""The one writer of the view: follows the topics and writes what they mean, with the positions, batch by batch.

It has no consumer group: the positions are in the database, in one transaction with the rows. So several processes may
run one over the same database; a batch that another process wrote first is dropped, and reading goes on behind it.
A slow, full or absent database delays the view and nothing else.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from connectors.ports import Clock, Connection
from schemas.codec import DecodeError, UnknownWriter
from streams.backends.ports import Backend, BackendError, Partition, Reader
from streams.core.flows import Record
from streams.core.policy import Switches
from streams.runners.global_ import ANSWER_WITHIN, PAUSE, until_one_ends, within
from streams.view.database import Database, ViewUnavailable
from streams.view.projection import Change, Projection
from streams.view.roll import Terms
from streams.view.writer import Moved, Writer

log = logging.getLogger("streams.view")

FETCH_RECORDS: Final = 1000
"""The most records of one transaction."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether everything is read."""
UPKEEP_EVERY: Final = 30.0
"""Seconds between two looks for what the date or a setting changed."""
PRUNE_EVERY: Final = timedelta(minutes=10)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Sources(Protocol):
    """What the view needs of the directory of integrations (`streams.directory.directory.Directory`)."""

    def connection(self, org: str, name: str) -> Connection | None: ...

    def switches(self, org: str, name: str) -> Switches: ...

    def connections(self, org: str | None = None) -> Sequence[Connection]: ...


class Projector:
    """Keeps a database up to date. An instance can `run` once."""

    def __init__(
        self,
        database: Database,
        backend: Backend,
        projections: Mapping[str, Projection],
        sources: Sources,
        clock: Clock,
        *,
        rest: float = 0.0,
    ) -> None:
        """``rest``: seconds of rest after each second of writing, so that others get the processor."""
        self._database = database
        self._backend = backend
        self._projections = projections
        self._sources = sources
        self._clock = clock
        self._rest = rest
        self._writer = Writer(database, self._terms)
        self._positions: dict[Partition, int] = {}
        """As the database has them."""
        self._read: Mapping[Partition, int] = {}
        """How far everything is written; a topic may end in records that a reader does not get."""
        self._lock = asyncio.Lock()
        """Held while a thread uses the writer."""
        self._pruned_at = EPOCH
        self.as_of: datetime | None = None
        """Everything that was written before is in the view; null before that was found the first time."""
        self.behind: int | None = None
        """Records that are not in the view, as of the last look; null before the first one."""
        self.expected: int | None = None
        """Records that will have been projected since the start when the view is complete, as of the last look."""
        self.records = 0
        """Records that were projected since the start."""
        self.problem: str | None = "not connected yet"
        """Why the view does not follow at the moment."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._connected()
            except Moved:
                continue
            except TimeoutError:
                self._lost(f"no broker answered within {ANSWER_WITHIN:g} s")
            except (ViewUnavailable, BackendError, UnknownWriter) as error:
                self._lost(str(error))
            except Exception as error:  # a bug must not end the process, which does much more than this
                log.exception("The view cannot go on")
                self._lost(f"an error of the program: {type(error).__name__}")
            await self._clock.sleep(PAUSE)

    def _lost(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("The view is not kept up to date at the moment: %s", problem)
        self.problem = problem

    # ------------------------------------------------------------------------------------------------------- reading

    async def _connected(self) -> None:
        await asyncio.to_thread(self._database.migrate)
        self._positions = await asyncio.to_thread(self._writer.positions)
        reader = self._backend.reader(tuple(self._projections), self._positions)
        try:
            await within(self._clock, reader.start(), ANSWER_WITHIN)
            self._read = dict(reader.positions)
            if lost := await self._lost_records(reader):
                log.warning("The topics end before what the view has read (%s): it is rebuilt", lost)
                await asyncio.to_thread(self._rebuild)
                return
            await until_one_ends(self._feed(reader), self._watch(reader), self._keep_up())
        finally:
            await reader.stop()

    async def _lost_records(self, reader: Reader) -> str | None:
        ends = await within(self._clock, reader.ends(), ANSWER_WITHIN)
        for partition, end in ends.items():
            if self._positions.get(partition, 0) > end:
                return f"{partition.topic}-{partition.partition}: {self._positions[partition]} of {end}"
        return None

    def _rebuild(self) -> None:
        self._database.drop()
        self._database.migrate()

    async def _feed(self, reader: Reader) -> None:
        while True:
            fetched = await reader.fetch(FETCH_RECORDS)
            read = dict(reader.positions)
            after = {partition: records[-1].offset + 1 for partition, records in fetched.items() if records}
            if after:
                began = self._clock.monotonic()
                await self._shielded(self._write, fetched, after)
                busy = self._clock.monotonic() - began
                self._positions.update(after)
                self.records += sum(map(len, fetched.values()))
                self.problem = None
                self._read = read
                await self._clock.sleep(busy * self._rest)
            self._read = read

    def _write(self, fetched: Mapping[Partition, Sequence[Record]], after: Mapping[Partition, int]) -> None:
        self._writer.apply(list(self._changes(fetched)), self._positions, after)

    def _changes(self, fetched: Mapping[Partition, Sequence[Record]]) -> Iterator[Change]:
        for partition, records in fetched.items():
            project = self._projections[partition.topic]
            for record in records:
                try:
                    yield from project(record)
                except (DecodeError, UnicodeDecodeError) as error:
                    # The flows make a dead letter of it; the view has nothing to show of it.
                    log.warning("%s-%d@%d is left out of the view: %s", *partition, record.offset, error)

    async def _watch(self, reader: Reader) -> None:
        """Note from time to time until when everything is in the view."""
        while True:
            asked = self._clock.now()
            ends = await within(self._clock, reader.ends(), ANSWER_WITHIN)
            while behind := sum(max(0, end - self._read.get(one, 0)) for one, end in ends.items()):
                self.behind, self.expected = behind, self.records + behind
                await self._clock.sleep(LOOK_EVERY / 5)
            self.behind = 0
            await self._shielded(self._writer.caught_up, asked)
            self.as_of, self.problem = asked, None
            await self._clock.sleep(LOOK_EVERY)

    async def _keep_up(self) -> None:
        """Derive again what the date or a setting changed, and delete old history."""
        while True:
            now = self._clock.now()
            known = await self._shielded(self._writer.terms)
            for one in self._sources.connections():
                terms = f"{one.timezone} {one.rules} {self._sources.switches(one.org, one.name)}"
                if known.get((one.org, one.name)) != terms:
                    # None are noted meanwhile: if this is interrupted, some units have the new ones and some the old.
                    await self._shielded(self._writer.note_terms, one.org, one.name, "")
                    await self._each(self._writer.derive_all(one.org, one.name))
                    await self._shielded(self._writer.note_terms, one.org, one.name, terms)
            days = {(one.org, one.name): one.day(now) for one in self._sources.connections()}
            while await self._shielded(self._writer.derive_due, days):
                pass
            if now - self._pruned_at >= PRUNE_EVERY:
                await self._shielded(self._writer.prune, now)
                self._pruned_at = now
            await self._clock.sleep(UPKEEP_EVERY)

    async def _each(self, parts: Iterator[int]) -> None:
        while await self._shielded(next, parts, None) is not None:
            pass

    async def _shielded(self, call: Any, *arguments: Any) -> Any:
        """Return the result of a call in a thread; a cancellation waits for its end, so that no two threads write."""
        async with self._lock:
            running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait({running})
                raise

    # ---------------------------------------------------------------------------------------------------------- terms

    def _terms(self, org: str, name: str, property_id: int) -> Terms:
        source = self._sources.connection(org, name)
        if source is None:
            return Terms(self._clock.now().date())
        excluded = not self._sources.switches(org, name).includes(property_id)
        return Terms(source.day(self._clock.now()), source.rules, excluded)
