"""The whole system on a real cluster: Kafka, web roles and workers as processes, the stand-ins in the test's loop.

Nothing here measures time: a machine may be busy, so everything waits for what it is about, and for long.
"""

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiokafka
import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio, Webhooks, seed_portfolio
from connectors.clock import SystemClock
from connectors.ports import Clock
from connectors.rentsync.standin import RentSyncStandIn
from connectors.serving import running
from schemas.partitions import partition_of
from streams import topology
from streams.backends.admin import TopicAdmin
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Record
from streams.local.demo import ZONE, demo_env
from streams.local.processes import SUPERVISED

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
HOME = partition_of(b"default", PARTITIONS)
"""Where the org of these stories lives."""
DELAYS = ("500ms", "1s", "1500ms", "2s")
PATIENCE = 120.0
"""Seconds that anything may take before it counts as lost."""
LOOK_EVERY = 0.05

SECRETS = {
    "BUILDIUM_CLIENT_ID": "canary-buildium-client-id-5f1c",
    "BUILDIUM_CLIENT_SECRET": "canary-buildium-client-secret-92ab",
    "BUILDIUM_WEBHOOK_SECRET": "canary-webhook-secret-77d0",
    "RENTSYNC_API_KEY": "canary-rentsync-key-c3e4",
    "RENTSTREAM_JWT_SECRET": "canary-jwt-secret-1b9e-0123456789abcdef",
}
"""What no topic, no output of a process and no metric may ever show."""

_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port below those that a system hands out to clients, so that nobody takes it meanwhile."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


class Gate:
    """Stands before a stand-in and, while it is closed, lets nobody ask for a path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._closed: re.Pattern[str] | None = None
        self._opened = asyncio.Event()
        self.waiting = 0
        """Who waits, and who waited so long that he went."""

    def close(self, path: str) -> None:
        """Let calls whose path matches wait from now on."""
        self._closed, self.waiting = re.compile(path), 0
        self._opened.clear()

    def open(self) -> None:
        self._closed = None
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._closed is not None and self._closed.fullmatch(scope.get("path", "")):
            self.waiting += 1
            await self._opened.wait()
        await self._app(scope, receive, send)


class Process:
    """One process of RentStream; what it says goes to a file."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.http = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.out = folder / f"{name}.log"
        self.expected_to_end = False
        with self.out.open("ab") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "-v", *arguments],
                env={**env, "RENTSTREAM_HTTP": self.http, "RENTSTREAM_ADMIN": self.admin, SUPERVISED: "1"},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """The exit code; null while it lives."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        if self.code is None:
            self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself; returns its exit code."""
        try:
            return self._popen.wait(seconds)
        finally:
            self.kill()

    def terminate(self) -> None:
        """Ask it to end."""
        self.expected_to_end = True
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; nothing of it is left afterwards."""
        self.expected_to_end = True
        self.signal(signal.SIGKILL)
        self._popen.wait()
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def said(self) -> bytes:
        return self.out.read_bytes()


async def _stopped(stopping: Coroutine[Any, Any, object]) -> None:
    """Stop a client; whatever it makes of a broker that is away (even a cancellation of its own) is no news."""
    task = asyncio.create_task(stopping)
    await asyncio.wait({task}, timeout=20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _stopped_by(stop: Callable[[], Coroutine[Any, Any, object]]) -> None:
    await _stopped(stop())


class Tap:
    """Reads every topic of a world from its beginning, outside of every group."""

    def __init__(self, servers: str, prefix: str, names: Sequence[str]) -> None:
        self._prefix = prefix
        self.partitions = [aiokafka.TopicPartition(prefix + name, n) for name in names for n in range(PARTITIONS)]
        self.records: defaultdict[str, list[ConsumedRecord]] = defaultdict(list)
        self._consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._consumer.start()
        self._consumer.assign(self.partitions)
        await self._consumer.seek_to_beginning(*self.partitions)
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await _stopped(self._consumer.stop())

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(KafkaError):
                for found in (await self._consumer.getmany(timeout_ms=500)).values():
                    for one in found:
                        name = one.topic.removeprefix(self._prefix)
                        self.records[name].append(
                            ConsumedRecord(
                                name, one.partition, one.offset, one.timestamp, one.key, one.value, one.headers
                            )
                        )

    async def ends(self) -> Mapping[Any, int]:
        found: Mapping[Any, int] = await self._consumer.end_offsets(self.partitions)
        return found

    async def caught_up(self) -> bool:
        """Whether all that was on the topics when this was called has been read."""
        ends = await self.ends()
        return all([await self._consumer.position(one) >= end for one, end in ends.items()])


class ClusterWorld:
    """Buildium and RentSync in this process, everything else as it runs in production."""

    def __init__(
        self,
        kafka: str,
        prefix: str,
        folder: Path,
        portfolio: Callable[[Clock], Portfolio] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.kafka, self.prefix, self.folder = kafka, prefix, folder
        self.clock: Clock = SystemClock()
        self.portfolio = (portfolio or seed)(self.clock)
        self.buildium = BuildiumStandIn(
            self.portfolio,
            client_id=SECRETS["BUILDIUM_CLIENT_ID"],
            client_secret=SECRETS["BUILDIUM_CLIENT_SECRET"],
        )
        self.gate = Gate(self.buildium.app)
        self.rentsync = RentSyncStandIn(SECRETS["RENTSYNC_API_KEY"], self.clock)
        self.picked: set[int] = set()
        self.webs: list[Process] = []
        self.workers: list[Process] = []
        self.past: list[Process] = []
        self.senders: list[Webhooks] = []
        self.env: dict[str, str] = {}
        self._settings = dict(settings or {})
        self._named = 0
        names = [spec.name for spec in topology.all_topics(DELAYS)]
        self.tap = Tap(kafka, prefix, names)
        self._log = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
        self._admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        self._client = httpx.AsyncClient(trust_env=False, timeout=10)
        self._open = contextlib.AsyncExitStack()

    # ---------------------------------------------------------------------------------------------- opening and closing

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opening:
            opening.push_async_callback(self._close_processes)
            opening.push_async_callback(self._client.aclose)
            buildium = await opening.enter_async_context(running(self.gate))
            opening.callback(self.gate.open)
            rentsync = await opening.enter_async_context(running(self.rentsync.app))
            self.env = self._environment(buildium, rentsync)
            async with TopicAdmin(self.kafka, prefix=self.prefix, partitions=PARTITIONS) as admin:
                await admin.apply(topology.all_topics(DELAYS))
            opening.push_async_callback(_stopped_by, self.tap.stop)
            await self.tap.start()
            opening.push_async_callback(_stopped_by, self._log.stop)
            await self._log.start()
            opening.push_async_callback(_stopped_by, self._admin.close)
            await self._admin.start()
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _close_processes(self) -> None:
        for sender in self.senders:
            await sender.aclose()
        for process in (*self.past, *self.workers, *self.webs):
            process.kill()

    def _environment(self, buildium: str, rentsync: str) -> dict[str, str]:
        outside = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}  # noqa: TID251
        return {
            **outside,
            "PYTHONPATH": str(ROOT),
            **demo_env(buildium, rentsync),
            **SECRETS,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "RENTSTREAM_TOPIC_PREFIX": self.prefix,
            "RENTSTREAM_DATA": str(self.folder / "data"),
            "RENTSTREAM_PARTITIONS": str(PARTITIONS),
            "RENTSTREAM_RETRY_LADDER": ",".join(DELAYS),
            "RENTSTREAM_LINGER": "100ms",
            "RENTSTREAM_SESSION_TIMEOUT": "6s",
            "RENTSTREAM_SWEEP_EVERY": "1000h",  # one at the start; every other one is a story's own
            "BUILDIUM_RETRY_DELAY": "100",
            **self._settings,
        }

    # -------------------------------------------------------------------------------------------------------- processes

    async def start(self, workers: int = 1) -> None:
        started = [self.start_worker() for _ in range(workers)]
        for worker in started:
            await self.ready(worker)

    def start_worker(self, name: str | None = None) -> Process:
        """Start a worker, and do not wait for it."""
        if name is None:
            self._named += 1
            name = f"w{self._named}"
        worker = Process(name, ["worker", "--name", name], self.env, self.folder)
        self.workers.append(worker)
        return worker

    async def start_web(self) -> Process:
        """Start a web role; Buildium sends to each of them."""
        web = Process(f"web{len(self.webs) + 1}", ["http"], self.env, self.folder)
        self.webs.append(web)
        self.senders.append(
            Webhooks(
                f"http://{web.http}/api/webhooks/buildium",
                SECRETS["BUILDIUM_WEBHOOK_SECRET"],
                self.clock,
                account=self.portfolio.account,
                schedule=(2.0,) * 60,
                random=random.Random(7),
            )
        )
        await self.ready(web)
        return web

    async def kill_worker(self) -> None:
        await self.kill(self.workers[0])

    async def kill(self, worker: Process) -> None:
        await asyncio.to_thread(worker.kill)
        self.gone(worker)

    def gone(self, process: Process) -> None:
        """Note that a process has ended."""
        for living in (self.workers, self.webs):
            if process in living:
                living.remove(process)
        self.past.append(process)

    async def stop(self, process: Process) -> int:
        """Ask a process to end; returns its exit code."""
        process.terminate()
        await self.until(lambda: process.code is not None)
        code = process.code
        assert code is not None
        self.gone(process)
        process.kill()
        return code

    async def stop_web(self, web: Process) -> int:
        """Ask a web role to end, and let Buildium send nothing to it any more; returns its exit code."""
        sender = self.senders.pop(self.webs.index(web))
        await sender.settle()
        await sender.aclose()
        return await self.stop(web)

    async def owner(self, group: str) -> Process:
        """The worker that has the org of these stories in a group, once somebody has."""
        found: list[Process] = []

        async def owned() -> bool:
            shares = await self.shares(group)
            found[:] = [one for one in self.workers if HOME in shares.get(one.name, ())]
            return len(found) == 1

        await self.eventually(owned, f"somebody owns the org in {group}", every=0.2)
        return found[0]

    async def shares(self, group: str) -> dict[str, frozenset[int]]:
        """The partitions of each worker in a group, by its name; nothing while the group is not at rest."""
        shares: dict[str, frozenset[int]] = {}
        try:
            (answer,) = await self._admin.describe_consumer_groups([self.prefix + group])
        except KafkaError:
            return shares
        for _error, _name, state, _type, _protocol, members, *_more in answer.groups:
            if state != "Stable":
                return {}
            for _member, client, _host, _metadata, assignment, *_ in members:
                name = client.removeprefix(self.prefix).removeprefix(f"{topology.APP}-")
                given = ConsumerProtocolMemberAssignment.decode(assignment).assignment
                shares[name] = frozenset(number for _, numbers in given for number in numbers)
        return shares

    async def page(self, process: Process, path: str) -> httpx.Response | None:
        """One of the pages for operators; null while nobody listens there."""
        try:
            return await self._client.get(f"http://{process.admin}{path}")
        except httpx.TransportError:
            return None

    async def ready(self, process: Process) -> None:
        async def is_ready() -> bool:
            found = await self.page(process, "/readyz")
            return found is not None and found.status_code == 200

        await self.eventually(is_ready, f"{process.name} is ready")

    def check(self) -> None:
        """Fail if a process ended that nobody asked to."""
        for process in (*self.workers, *self.webs):
            if process.code is not None and not process.expected_to_end:
                raise AssertionError(f"{process.name} ended by itself with {process.code}: {process.out}")

    async def mend(self, workers: int = 2) -> None:
        """Bring a world that a story may have left in disorder back to so many workers at work and nothing wrong."""
        self.rentsync.recover()
        self.buildium.faults.clear()
        self.gate.open()
        for process in (*self.workers, *self.webs):
            process.signal(signal.SIGCONT)
        for process in [one for one in (*self.workers, *self.webs) if one.code is not None]:
            self.gone(process)
        while len(self.workers) > workers:
            await self.stop(self.workers[-1])
        while len(self.webs) > 1:
            await self.stop_web(self.webs[-1])
        await self.start(workers - len(self.workers))
        if not self.webs:
            await self.start_web()
        await self.until(lambda: bool(self.rentsync.accepted))  # the first sweep begins some time after a first start
        await self.rest()

    def outputs(self) -> list[tuple[str, str]]:
        """The last words of each process."""
        return [
            (one.name, one.said()[-6000:].decode(errors="replace"))
            for one in (*self.past, *self.workers, *self.webs)
            if one.out.exists()
        ]

    # ------------------------------------------------------------------------------------------------- what stories use

    async def tell(self, events: Events, copies: int = 1, *, shuffled: bool = False) -> None:
        """The real webhooks, signed and posted, through every web role at the same time."""
        count = len(self.senders)
        for sender in self.senders:
            sender.copies, sender.shuffled = copies, shuffled
        await asyncio.gather(*(sender.send(events[at::count]) for at, sender in enumerate(self.senders)))

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        async def held() -> bool:
            return holds()

        return await self.eventually(held, "it", within)

    async def eventually(
        self, holds: Callable[[], Any], what: str = "it", within: float = PATIENCE, every: float = LOOK_EVERY
    ) -> float:
        """Wait until something holds that has to be asked for; returns the seconds that it took."""
        began = time.monotonic()
        patience = max(within, PATIENCE)
        while not await holds():
            self.check()
            if time.monotonic() - began > patience:
                raise TimeoutError(f"{what} did not come true within {patience} s")
            await asyncio.sleep(every)
        return time.monotonic() - began

    async def rest(self) -> None:
        """Until every group has committed all that there is, the waiting topics included."""
        await self.eventually(self._resting, "rest", every=0.2)
        await self.eventually(self.tap.caught_up, "the reading of all topics")

    async def _resting(self) -> bool:
        committed: dict[Any, int] = {}
        groups = topology.groups(DELAYS)
        try:
            for group in groups:
                found = await self._admin.list_consumer_group_offsets(self.prefix + group)
                committed |= {one: state.offset for one, state in found.items()}
            ends = await self.tap.ends()  # asked for last: whatever was said meanwhile counts
        except KafkaError:
            return False
        read = {self.prefix + topic for names in groups.values() for topic in names}
        return all(committed.get(one, 0) >= end for one, end in ends.items() if one.topic in read and end)

    async def put(self, topic: str, value: bytes) -> None:
        await self._log.send_and_wait(self.prefix + topic, value, key=b"default", partition=HOME)

    def read(self, topic: str) -> Sequence[Record]:
        return self.tap.records[topic]

    async def tell_settled(self) -> None:
        """Until every webhook that had to be repeated has arrived, or was given up."""
        for sender in self.senders:
            await sender.settle()


@contextlib.asynccontextmanager
async def cluster(
    kafka: str,
    prefix: str,
    folder: Path,
    portfolio: Callable[[Clock], Portfolio] | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[ClusterWorld]:
    """A world with a web role and no worker yet; nothing of it lives on afterwards."""
    async with ClusterWorld(kafka, prefix, folder, portfolio, settings) as world:
        await world.start_web()
        yield world


def seed(clock: Clock) -> Portfolio:
    """Larger than the one in memory, for many stories share it."""
    return seed_portfolio(clock, units=160, timezone=ZONE)
