"""The environment of runner tests: a broker in memory, processes that can be killed, and a fake port."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from connectors.ports import Failure
from schemas.codec import MAGIC, decode_as
from schemas.pms import FetchOrigin, FetchRequest
from schemas.topics import TopicSpec
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock, settle
from streams.core.flows import Emit, Headers, ProducerRecord, Record
from streams.core.retry import Done, Held, Outcome


class Runner(Protocol):
    """A call or a redeliver."""

    async def run(self) -> None: ...

    async def stop(self) -> None: ...


OUT = TopicSpec("out", "output of the tested flows")


def text(record: Record) -> str:
    """Return the text of a record: its value, or the content that `emit_of` encoded."""
    value = record.value or b""
    return decode_as(FetchRequest, value).event if value.startswith(MAGIC) else value.decode()


def emit_of(content: str, topic: TopicSpec = OUT, headers: Headers = (), body: bytes = b"") -> Emit:
    """Return an emit; the part of ``content`` before the first ``:`` is the org."""
    org = content.partition(":")[0]
    at = datetime(2026, 3, 1, tzinfo=UTC)
    record = FetchRequest(org=org, connection="c", origin=FetchOrigin.WEBHOOK, event=content, received_at=at, body=body)
    return Emit(topic, org, record, headers=headers)


@dataclass
class Process:
    """A process with one runner."""

    backend: MemoryBackend
    runner: Runner
    task: "asyncio.Task[None]"

    async def kill(self) -> None:
        """End the process like ``kill -9``."""
        killing = asyncio.create_task(self.backend.kill())
        await settle()
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        await killing

    async def ended(self) -> BaseException | None:
        await settle()
        return self.task.exception()


@dataclass
class Stage:
    """The broker, the clock and the processes of a test."""

    partitions: int = 1
    clock: MovableClock = field(default_factory=MovableClock)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(self.clock, self.partitions)

    def produce(
        self, topic: str, *payloads: str, partition: int | None = 0, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        """Produce records; the part of a payload before the first ``:`` is the key."""
        for one in payloads:
            self.broker.append(ProducerRecord(topic, one.partition(":")[0].encode(), one.encode(), headers), partition)

    def texts(self, topic: str, partition: int | None = None) -> list[str]:
        return [text(record) for record in self.broker.read(topic, partition)]

    async def start(self, create: Callable[[MemoryBackend], Runner]) -> Process:
        backend = MemoryBackend(self.broker)
        runner = create(backend)
        one = Process(backend, runner, asyncio.create_task(runner.run()))
        self.processes.append(one)
        await settle()
        return one


@asynccontextmanager
async def stage(partitions: int = 1) -> AsyncIterator[Stage]:
    created = Stage(partitions)
    yield created
    for one in created.processes:
        one.task.cancel()
    for one in created.processes:
        with suppress(asyncio.CancelledError, Exception):
            await one.task


def key(record: Record) -> bytes | None:
    return record.key


def echo(records: Sequence[Record]) -> Done:
    return Done(tuple(emit_of(text(record)) for record in records))


Answer = Outcome | Failure | Held | BaseException | None


@dataclass
class FakePort:
    """A `perform` that waits until the test ends it."""

    began: list[list[str]] = field(default_factory=list)
    """The records of each call, in the order of their begin."""
    cancelled: list[list[str]] = field(default_factory=list)
    _open: dict[str, "asyncio.Future[Answer]"] = field(default_factory=dict)

    async def perform(self, records: Sequence[Record]) -> Outcome | Failure | Held:
        names = [text(record) for record in records]
        self.began.append(names)
        end = asyncio.get_running_loop().create_future()
        self._open[names[0]] = end
        try:
            answer = await end
        except asyncio.CancelledError:
            if not end.done() or end.cancelled():
                self.cancelled.append(names)
            raise
        finally:
            if self._open.get(names[0]) is end:
                del self._open[names[0]]
        if isinstance(answer, BaseException):
            raise answer
        return echo(records) if answer is None else answer

    @property
    def open(self) -> list[str]:
        """Return the first record of each call in flight."""
        return list(self._open)

    async def end(self, name: str, answer: Answer = None) -> None:
        """End a call with an answer; by default it is done, and its records are copied to ``out``."""
        self._open[name].set_result(answer)
        await settle()
