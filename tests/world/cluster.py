"""The whole system on a real Kafka: web roles and workers as processes, the stand-ins in the event loop of the test.

Waits have long timeouts and poll for their condition, because the machine may be busy; nothing here measures time.
"""

import asyncio
import base64
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import aiokafka
import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio, Webhooks, seed_portfolio
from connectors.clock import SystemClock
from connectors.ports import Clock
from connectors.rentsync.standin import PATH, RentSyncStandIn
from connectors.serving import running
from schemas.partitions import partition_of
from streams import topology
from streams.backends.admin import TopicAdmin
from streams.backends.deadlines import stop_client
from streams.backends.ports import ConsumedRecord
from streams.core.flows import Record
from streams.local.demo import ZONE, demo_env
from streams.local.processes import SUPERVISED
from streams.web.api.tokens import issue

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
ORG_PARTITION = partition_of(b"default", PARTITIONS)
"""The partition of the org of these stories."""
DELAYS = ("500ms", "1s", "1500ms", "2s")
TIMEOUT = 120.0
"""Minimum timeout of every wait, in seconds."""
POLL_SECONDS = 0.05

ENCRYPTION_KEY = base64.b64encode(b"canary-encryption-key-of-32bytes").decode()

CONSOLE_PASSWORD = "canary-console-password-6b20"

SECRETS = {
    "BUILDIUM_CLIENT_ID": "canary-buildium-client-id-5f1c",
    "BUILDIUM_CLIENT_SECRET": "canary-buildium-client-secret-92ab",
    "BUILDIUM_WEBHOOK_SECRET": "canary-webhook-secret-77d0",
    "RENTSYNC_API_KEY": "canary-rentsync-key-c3e4",
    "RENTSTREAM_JWT_SECRET": "canary-jwt-secret-1b9e-0123456789abcdef",
    "RENTSTREAM_ENCRYPTION_KEYS": f"key-1:{ENCRYPTION_KEY}",
    "RENTSTREAM_CONSOLE_PASSWORD": CONSOLE_PASSWORD,
}
"""Canary secrets of the environment: none may appear in a topic, log, metric or file."""

_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a free port below the ephemeral range, so that no client connection takes it meanwhile."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


class Gate:
    """ASGI middleware that delays requests for a path while it is closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._closed: re.Pattern[str] | None = None
        self._opened = asyncio.Event()
        self.waiting = 0
        """Number of requests that were delayed since `close`, those that gave up included."""

    def close(self, path: str) -> None:
        """Delay requests whose path matches the regular expression ``path``."""
        self._closed, self.waiting = re.compile(path), 0
        self._opened.clear()

    def open(self) -> None:
        """Let all requests pass."""
        self._closed = None
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._closed is not None and self._closed.fullmatch(scope.get("path", "")):
            self.waiting += 1
            await self._opened.wait()
        await self._app(scope, receive, send)


class Process:
    """One process of RentStream; its output goes to a file."""

    def __init__(self, name: str, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.http = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        self.log = folder / f"{name}.log"
        self.expected_to_end = False
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "-v", *arguments],
                env={**env, "RENTSTREAM_HTTP": self.http, "RENTSTREAM_ADMIN": self.admin, SUPERVISED: "1"},
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def arguments(self) -> bytes:
        """Its arguments as every user of the machine can read them."""
        return Path(f"/proc/{self._popen.pid}/cmdline").read_bytes()

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self.code is None:
            self._popen.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait until it ends and return its exit code. Raise `subprocess.TimeoutExpired` after ``seconds``."""
        try:
            return self._popen.wait(seconds)
        finally:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.expected_to_end = True
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, wait for the end, and close the pipe."""
        self.expected_to_end = True
        self.signal(signal.SIGKILL)
        self._popen.wait()
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def output(self) -> bytes:
        """Return everything that it wrote to stdout and stderr."""
        return self.log.read_bytes()


class TopicReader:
    """Reads every topic of a world from the beginning, without a consumer group, and keeps all records."""

    def __init__(self, servers: str, prefix: str, names: Sequence[str]) -> None:
        self._prefix = prefix
        self.partitions = [aiokafka.TopicPartition(prefix + name, n) for name in names for n in range(PARTITIONS)]
        self.records: defaultdict[str, list[ConsumedRecord]] = defaultdict(list)
        self._consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._consumer.start()
        self._consumer.assign(self.partitions)
        await self._consumer.seek_to_beginning(*self.partitions)
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await stop_client(self._consumer, 20)

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(KafkaError):
                for fetched in (await self._consumer.getmany(timeout_ms=500)).values():
                    for raw in fetched:
                        name = raw.topic.removeprefix(self._prefix)
                        self.records[name].append(
                            ConsumedRecord(
                                name, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, raw.headers
                            )
                        )

    async def end_offsets(self) -> Mapping[Any, int]:
        offsets: Mapping[Any, int] = await self._consumer.end_offsets(self.partitions)
        return offsets

    async def caught_up(self) -> bool:
        """Return whether every record that was on the topics at the time of the call has been read."""
        ends = await self.end_offsets()
        return all([await self._consumer.position(partition) >= end for partition, end in ends.items()])


class Org:
    """An org whose integrations are managed over the API: its account, its receiver, and its own secrets."""

    def __init__(self, world: "ClusterWorld", name: str, portfolio: Portfolio) -> None:
        self.name = name
        self.portfolio = portfolio
        self.secrets = {
            what: f"canary-{what}-of-{name}-3e8d"
            for what in ("clientId", "clientSecret", "webhookSecret", "apiKey", "newClientSecret", "newApiKey")
        }
        """Canary secrets, by their names in the API; the new ones are for a rotation."""
        self.buildium = BuildiumStandIn(
            portfolio, client_id=self.secrets["clientId"], client_secret=self.secrets["clientSecret"]
        )
        self.rentsync = RentSyncStandIn(self.secrets["apiKey"], world.clock)
        self.buildium_url = self.rentsync_url = ""
        self.answers: list[bytes] = []
        """The body of every answer of the API."""
        self._world = world

    def body(self, name: str, **secrets: str) -> dict[str, Any]:
        """Return the body of the PUT of an integration, with other secrets than its own if wanted."""
        settings: Mapping[str, object] = {"url": f"{self.rentsync_url}{PATH}"}
        names = ["apiKey"]
        if name == "buildium":
            settings = {"baseUrl": f"{self.buildium_url}/v1", "timezone": ZONE, "retryDelay": 100}
            names = ["clientId", "clientSecret", "webhookSecret"]
        return {"system": name, "settings": settings, "secrets": {one: self.secrets[one] for one in names} | secrets}

    async def call(
        self, method: str, path: str = "", body: object = None, *, token: str | None = None
    ) -> httpx.Response:
        """Call ``/api/integrations{path}`` of the first web role with a token of this org."""
        response = await self._world.call_api(method, f"/api/integrations{path}", self.name, body, token)
        self.answers += [response.content, *(value for _, value in response.headers.raw)]
        return response

    async def enable(self) -> Webhooks:
        """Store, test and enable both integrations; return the sender of the account's webhooks."""
        for name in ("buildium", "rentsync"):
            created = await self.call("PUT", f"/{name}", self.body(name))
            assert (created.status_code, created.json()["enabled"]) == (201, False), created.text
            checked = await self.call("POST", f"/{name}/check")
            assert checked.json()["ok"], checked.text
            assert (await self.call("POST", f"/{name}/enable")).status_code == 200
        url = (await self.call("GET", "/buildium")).json()["webhookUrl"]
        return Webhooks(url, self.secrets["webhookSecret"], self._world.clock, account=self.portfolio.account)

    async def delete(self) -> None:
        """Delete what is stored."""
        for one in (await self.call("GET")).json():
            if one["origin"] == "stored":
                assert (await self.call("DELETE", f"/{one['name']}")).status_code == 204


class ClusterWorld:
    """The stand-ins of Buildium and RentSync in this process, the roles in processes as in production."""

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
        self.ended: list[Process] = []
        self.senders: list[Webhooks] = []
        self.env: dict[str, str] = {}
        self.neighbor: Org | None = None
        """Another org with the same ids on the same partition, for the whole session."""
        self._settings = dict(settings or {})
        self._worker_count = 0
        names = [spec.name for spec in topology.all_topics(DELAYS)]
        self.topics = TopicReader(kafka, prefix, names)
        self._producer = aiokafka.AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
        self._admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        self._client = httpx.AsyncClient(trust_env=False, timeout=10)
        self._resources = contextlib.AsyncExitStack()

    # ----------------------------------------------------------------------------------------------- start and shutdown

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close_processes)
            stack.push_async_callback(self._client.aclose)
            buildium = await stack.enter_async_context(running(self.gate))
            stack.callback(self.gate.open)
            rentsync = await stack.enter_async_context(running(self.rentsync.app))
            self.env = self._environment(buildium, rentsync)
            async with TopicAdmin(self.kafka, prefix=self.prefix, partitions=PARTITIONS) as admin:
                await admin.apply(topology.all_topics(DELAYS))
            stack.push_async_callback(self.topics.stop)
            await self.topics.start()
            stack.push_async_callback(stop_client, self._producer, 20)
            await self._producer.start()
            stack.push_async_callback(stop_client, self._admin, 20)
            await self._admin.start()
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()

    async def _close_processes(self) -> None:
        for sender in self.senders:
            await sender.aclose()
        for process in (*self.ended, *self.workers, *self.webs):
            process.kill()

    def _environment(self, buildium: str, rentsync: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}  # noqa: TID251
        return {
            **inherited,
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
            "RENTSTREAM_PULSE_EVERY": "0",
            "RENTSTREAM_SWEEP_EVERY": "1000h",  # one at the start; stories start the others
            "BUILDIUM_RETRY_DELAY": "100",
            **self._settings,
        }

    # -------------------------------------------------------------------------------------------------------- processes

    async def start(self, workers: int = 1) -> None:
        """Start some more workers and wait until they are ready."""
        started = [self.start_worker() for _ in range(workers)]
        for worker in started:
            await self.ready(worker)

    def start_worker(self, name: str | None = None) -> Process:
        """Start a worker without waiting until it is ready."""
        if name is None:
            self._worker_count += 1
            name = f"w{self._worker_count}"
        worker = Process(name, ["worker", "--name", name], self.env, self.folder)
        self.workers.append(worker)
        return worker

    async def start_web(self) -> Process:
        """Start a web role, register its webhook at Buildium, and wait until it is ready."""
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
        """Kill a worker with SIGKILL."""
        await asyncio.to_thread(worker.kill)
        self._mark_ended(worker)

    def _mark_ended(self, process: Process) -> None:
        for processes in (self.workers, self.webs):
            if process in processes:
                processes.remove(process)
        self.ended.append(process)

    async def stop(self, process: Process) -> int:
        """Stop a process with SIGTERM and return its exit code."""
        process.terminate()
        await self.until(lambda: process.code is not None)
        code = process.code
        assert code is not None
        self._mark_ended(process)
        process.kill()
        return code

    async def stop_web(self, web: Process) -> int:
        """Unregister the webhook of a web role, stop the role with SIGTERM, and return its exit code."""
        sender = self.senders.pop(self.webs.index(web))
        await sender.settle()
        await sender.aclose()
        return await self.stop(web)

    async def owner(self, group: str) -> Process:
        """Wait until one worker of a group owns the partition of the org, and return it."""
        owners: list[Process] = []

        async def owned() -> bool:
            assigned = await self.assignments(group)
            owners[:] = [worker for worker in self.workers if ORG_PARTITION in assigned.get(worker.name, ())]
            return len(owners) == 1

        await self.eventually(owned, f"a worker owns the org in {group}", every=0.2)
        return owners[0]

    async def assignments(self, group: str) -> dict[str, frozenset[int]]:
        """Return the partitions of each worker of a group, by its name; an empty dict during a rebalance."""
        assigned: dict[str, frozenset[int]] = {}
        try:
            (answer,) = await self._admin.describe_consumer_groups([self.prefix + group])
        except KafkaError:
            return assigned
        for _error, _name, state, _type, _protocol, members, *_more in answer.groups:
            if state != "Stable":
                return {}
            for _member, client, _host, _metadata, assignment, *_ in members:
                name = client.removeprefix(self.prefix).removeprefix(f"{topology.APP}-")
                decoded = ConsumerProtocolMemberAssignment.decode(assignment).assignment
                assigned[name] = frozenset(number for _, numbers in decoded for number in numbers)
        return assigned

    async def probe(self, process: Process, path: str) -> httpx.Response | None:
        """Request an endpoint of the admin address of a process; return None if it does not listen."""
        try:
            return await self._client.get(f"http://{process.admin}{path}")
        except httpx.TransportError:
            return None

    async def ready(self, process: Process) -> None:
        """Wait until a process is ready."""

        async def is_ready() -> bool:
            response = await self.probe(process, "/readyz")
            return response is not None and response.status_code == 200

        await self.eventually(is_ready, f"{process.name} is ready")

    def check(self) -> None:
        """Raise `AssertionError` if a process ended unexpectedly."""
        for process in (*self.workers, *self.webs):
            if process.code is not None and not process.expected_to_end:
                raise AssertionError(f"{process.name} ended unexpectedly with exit code {process.code}: {process.log}")

    async def reset(self, workers: int = 2) -> None:
        """Undo what a story may have left: remove all faults, run one web role and ``workers`` workers, and rest."""
        self.rentsync.recover()
        self.buildium.faults.clear()
        self.gate.open()
        for process in (*self.workers, *self.webs):
            process.signal(signal.SIGCONT)
        for process in [process for process in (*self.workers, *self.webs) if process.code is not None]:
            self._mark_ended(process)
        while len(self.workers) > workers:
            await self.stop(self.workers[-1])
        while len(self.webs) > 1:
            await self.stop_web(self.webs[-1])
        await self.start(workers - len(self.workers))
        if not self.webs:
            await self.start_web()
        await self.until(
            lambda: bool(self.rentsync.accepted)
        )  # the first sweep starts some time after the first worker
        await self.rest()

    def outputs(self) -> list[tuple[str, str]]:
        """Return the name and the last output of every process."""
        return [
            (process.name, process.output()[-6000:].decode(errors="replace"))
            for process in (*self.ended, *self.workers, *self.webs)
            if process.log.exists()
        ]

    # ------------------------------------------------------------------------------------------------------------- orgs

    @contextlib.asynccontextmanager
    async def org(self, name: str, portfolio: Portfolio | None = None) -> AsyncIterator[Org]:
        """Serve an account and a receiver for another org; delete its integrations afterwards."""
        org = Org(self, name, portfolio or seed_portfolio(self.clock, timezone=ZONE))
        async with running(org.buildium.app) as buildium, running(org.rentsync.app) as rentsync:
            org.buildium_url, org.rentsync_url = buildium, rentsync
            try:
                yield org
                # What is still asked for would wait for an integration of this name to come back, for a day.
                await self.rest()
            finally:
                await org.delete()
                await self.rest()

    async def call_api(
        self,
        method: str,
        path: str,
        org: str,
        body: object = None,
        token: str | None = None,
        more: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Call the API of the first web role, with a token of an org that may do everything, or with another one."""
        authorization = self.bearer(org) if token is None else {"authorization": f"Bearer {token}"}
        return await self._client.request(
            method,
            f"http://{self.webs[0].http}{path}",
            content=body if isinstance(body, bytes) else None if body is None else json.dumps(body),
            headers={**authorization, "content-type": "application/json", **(more or {})},
            timeout=30,
        )

    def bearer(self, org: str) -> dict[str, str]:
        """Return the header with a token of an org that may do everything."""
        secret = SecretStr(SECRETS["RENTSTREAM_JWT_SECRET"])
        return {"authorization": f"Bearer {issue(secret, 'a story', org, None, timedelta(hours=1), self.clock.now())}"}

    # ---------------------------------------------------------------------------------------------- the World protocol

    async def ask(
        self, method: str, path: str, body: object = None, *, org: str = "default", key: str | None = None
    ) -> httpx.Response:
        return await self.call_api(method, path, org, body, more={"idempotency-key": key} if key else {})

    async def send_webhooks(self, events: Events, copies: int = 1, *, shuffled: bool = False) -> None:
        """Send signed webhooks to all web roles concurrently, each event to one of them."""
        count = len(self.senders)
        for sender in self.senders:
            sender.copies, sender.shuffled = copies, shuffled
        await asyncio.gather(*(sender.send(events[start::count]) for start, sender in enumerate(self.senders)))

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        async def condition() -> bool:
            return holds()

        return await self.eventually(condition, "the condition", within)

    async def eventually(
        self, holds: Callable[[], Any], what: str, within: float = TIMEOUT, every: float = POLL_SECONDS
    ) -> float:
        """Wait until an async condition holds; return the seconds that it took.

        Raise `TimeoutError` with ``what`` after ``within`` seconds, at least `TIMEOUT`.
        """
        started = time.monotonic()
        timeout = max(within, TIMEOUT)
        while not await holds():
            self.check()
            if time.monotonic() - started > timeout:
                raise TimeoutError(f"not within {timeout:.0f} s: {what}")
            await asyncio.sleep(every)
        return time.monotonic() - started

    async def rest(self) -> None:
        """Wait until every group has committed all records, and all topics are read."""
        await self.eventually(self._all_committed, "every record is committed", every=0.2)
        await self.eventually(self.topics.caught_up, "every record is read")

    async def _all_committed(self) -> bool:
        committed: dict[Any, int] = {}
        groups = topology.groups(DELAYS)
        try:
            for group in groups:
                offsets = await self._admin.list_consumer_group_offsets(self.prefix + group)
                committed |= {partition: state.offset for partition, state in offsets.items()}
            ends = await self.topics.end_offsets()  # last, so that records written meanwhile count
        except KafkaError:
            return False
        consumed = {self.prefix + topic for names in groups.values() for topic in names}
        return all(
            committed.get(partition, 0) >= end for partition, end in ends.items() if partition.topic in consumed and end
        )

    async def put(
        self, topic: str, value: bytes | None, *, key: bytes | None = b"default", partition: int | None = None
    ) -> None:
        place = partition_of(key or b"default", PARTITIONS) if partition is None else partition
        await self._producer.send_and_wait(self.prefix + topic, value, key=key, partition=place)

    def read(self, topic: str) -> Sequence[Record]:
        return self.topics.records[topic]

    async def webhooks_settled(self) -> None:
        """Wait until every webhook was accepted or given up by Buildium's retry schedule."""
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
    """Yield a world with a web role and no worker; stop all of its processes afterwards."""
    async with ClusterWorld(kafka, prefix, folder, portfolio, settings) as world:
        await world.start_web()
        yield world


def seed(clock: Clock) -> Portfolio:
    """Return a portfolio that is larger than the one in memory, since many stories share it."""
    return seed_portfolio(clock, units=160, timezone=ZONE)
