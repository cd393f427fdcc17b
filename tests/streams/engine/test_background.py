"""What runs beside the engine: from before it joins the group until after it has left it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiokafka
import mode
import pytest

from streams.backends.memory import settle
from streams.core.flows import RecordBatch, Step, View
from streams.engine import Engine, EngineSettings
from streams.engine.engine import EngineCrashed
from tests.chaos.kafka import make_topics, wait_until

NAMES = ("one", "two")


@dataclass
class Beside:
    """Runs beside the engine, and notes what happens to it."""

    notes: list[str]
    name: str
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    end: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def run(self) -> None:
        self.notes.append(f"{self.name} runs")
        await self.end

    async def ready(self) -> None:
        self.notes.append(f"{self.name} is asked")
        await self.is_ready.wait()

    async def stop(self) -> None:
        self.notes.append(f"{self.name} is stopped")
        if not self.end.done():
            self.end.set_result(None)


class Member:
    """A member of the group, as far as joining and leaving go."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self._crashed = asyncio.Event()
        self.crash_reason: BaseException | None = None

    async def start(self) -> None:
        self.notes.append("joined")

    async def stop(self) -> None:
        self.notes.append("left")

    def crash(self, reason: BaseException) -> None:
        self.crash_reason = reason
        self._crashed.set()


class Ending:
    """A service of the engine, or its output."""

    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    async def stop(self) -> None:
        self.notes.append(f"{self.name} is stopped")


def engine_of(folder: Path, bootstrap: str = "nowhere:1", name: str = "app") -> Engine:
    return Engine(
        EngineSettings(
            bootstrap_servers=bootstrap,
            app_id=name,
            worker="w1",
            data_dir=folder,
            partitions=2,
            store="memory",
            session_timeout=6.0,
        )
    )


class Life:
    """An engine with two parts beside it, on a group that is none."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self.engine = engine_of(folder)
        self.one, self.two = (Beside(self.notes, name) for name in NAMES)
        self.member = Member(self.notes)
        self.stop = asyncio.Event()
        for part in (self.one, self.two):
            self.engine.background(part)

    async def begin(self) -> None:
        app: Any = self.member
        running = [asyncio.ensure_future(part.run()) for part in (self.one, self.two)]
        self.until_stopped = asyncio.create_task(self.engine._until_stopped(app, self.stop, running))
        await settle()

    async def shut_down(self) -> None:
        app: Any = self.member
        output: Any = Ending(self.notes, "output")
        beating = asyncio.create_task(asyncio.Event().wait())
        await self.engine._shut_down(app, [Ending(self.notes, "service")], [beating], output)  # type: ignore[list-item]


@pytest.fixture
async def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    await made.begin()
    return made


# ---------------------------------------------------------------------------------------------------- without a broker


async def test_the_group_is_joined_once_all_are_ready(life: Life) -> None:
    """They run from the beginning; until then no record is consumed."""
    first = list(life.notes)
    life.one.is_ready.set()
    await settle()
    second = list(life.notes)
    life.two.is_ready.set()
    await settle()

    assert sorted(first) == ["one is asked", "one runs", "two runs"]
    assert second == [*first, "two is asked"]
    assert life.notes == [*second, "joined"]
    assert not life.until_stopped.done()


async def test_a_stop_while_they_are_not_ready_joins_no_group(life: Life) -> None:
    life.stop.set()
    await life.until_stopped
    life.one.is_ready.set()
    life.two.is_ready.set()
    await settle()

    assert "joined" not in life.notes
    assert life.engine.status.reason is None


@pytest.mark.parametrize("joined", [False, True], ids=["before it joined", "after it joined"])
@pytest.mark.parametrize("reason", [OSError("the log is gone"), None], ids=["raises", "ends by itself"])
async def test_one_that_ends_is_a_crash_of_the_worker(life: Life, reason: Exception | None, joined: bool) -> None:
    """Also if it ends without an error: what depends on it would get older and older."""
    if joined:
        life.one.is_ready.set()
        life.two.is_ready.set()
        await settle()
    if reason:
        life.two.end.set_exception(reason)
    else:
        life.two.end.set_result(None)
    await life.until_stopped

    assert ("joined" in life.notes) is joined
    expected = reason or RuntimeError("what runs beside the engine ended before it was stopped")
    assert life.engine.status.reason == repr(expected)


async def test_one_that_cannot_become_ready_is_a_crash_of_the_worker(tmp_path: Path) -> None:
    class Hopeless(Beside):
        async def ready(self) -> None:
            raise OSError("no integrations")

    life = Life(tmp_path)
    life.engine.background(Hopeless(life.notes, "three"))
    life.one.is_ready.set()
    life.two.is_ready.set()
    await life.begin()
    await life.until_stopped

    assert "joined" not in life.notes
    assert life.engine.status.reason == "OSError('no integrations')"


async def test_the_crash_of_the_group_member_is_the_one_that_counts(life: Life) -> None:
    life.one.is_ready.set()
    life.two.is_ready.set()
    await settle()
    life.member.crash(OSError("the group is lost"))
    await life.until_stopped

    assert life.engine.status.reason == "OSError('the group is lost')"


async def test_they_stop_after_the_group_was_left_and_before_the_output(life: Life) -> None:
    """Calls in flight end before their clients are closed."""
    life.notes.clear()
    await life.shut_down()

    assert life.notes == ["service is stopped", "left", "one is stopped", "two is stopped", "output is stopped"]


async def test_nothing_is_declared_once_the_engine_runs(life: Life) -> None:
    app: Any = life.member
    life.engine._app = app

    with pytest.raises(RuntimeError, match="already running"):
        life.engine.background(life.one)


# -------------------------------------------------------------------------------------------------------- on a broker


class Service(mode.Service):  # type: ignore[misc]
    """A service of the engine that notes its end."""

    def __init__(self, notes: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._notes = notes

    async def on_stop(self) -> None:
        self._notes.append("service is stopped")


@pytest.mark.broker
@pytest.mark.parametrize("reason", [None, OSError("the log is gone")], ids=["stop", "crash"])
async def test_a_worker_with_a_part_beside_it(kafka: str, tmp_path: Path, reason: Exception | None) -> None:
    """No record is folded before it is ready, and it ends last; its crash is that of the worker."""
    name = f"beside-{time.time_ns()}"
    await make_topics(kafka, 2, [f"{name}-events"], [f"{name}-rows-changelog"])
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    await producer.send_and_wait(f"{name}-events", b"event", key=b"k", partition=0)
    await producer.stop()
    notes: list[str] = []
    part = Beside(notes, "one")
    engine = engine_of(tmp_path, kafka, name)

    def step(batch: RecordBatch, _views: Mapping[str, View]) -> Step:
        notes.append("folded")
        return Step({record.key: b"row" for record in batch.records if record.key is not None})

    engine.fold("copy", [f"{name}-events"], engine.table("rows"), step)
    engine.service(lambda: Service(notes))
    engine.background(part)
    running = asyncio.create_task(engine.run(signals=False))
    await wait_until(lambda: "one is asked" in notes, 30)
    asked = (list(notes), engine.status.started, engine.ready)
    part.is_ready.set()
    await wait_until(lambda: engine.ready and "folded" in notes, 40)
    if reason is None:
        engine.stop()
        await asyncio.wait_for(running, 30)
    else:
        part.end.set_exception(reason)
        with pytest.raises(EngineCrashed) as crashed:
            await asyncio.wait_for(running, 30)
        assert crashed.value.__cause__ is reason

    assert asked == (["one runs", "one is asked"], True, False)
    assert notes == ["one runs", "one is asked", "folded", "service is stopped", "one is stopped"]
