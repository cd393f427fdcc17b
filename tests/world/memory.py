"""The whole system in memory: the stand-ins behind ASGI, the real runners over a backend in memory, a movable clock."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any, Self, TypeVar, cast

import httpx
from pydantic import SecretStr

from connectors import http
from connectors.buildium.signature import sign
from connectors.buildium.standin import BuildiumStandIn, Events, Portfolio, seed_portfolio
from connectors.ports import Clock
from connectors.rentsync.standin import RentSyncStandIn
from schemas import topics
from schemas.base import Model
from schemas.codec import encode
from schemas.delivery import Doubt
from schemas.integrations import IntegrationMode
from schemas.partitions import partition_for, partition_of
from schemas.pms import FetchRequest
from streams import topology
from streams.backends.memory import MemoryBackend, MemoryBroker, MovableClock, settle
from streams.core.flows import DoubtChange, ProducerRecord, Record
from streams.core.observer import NullObserver
from streams.core.retry import ladder
from streams.directory.clients import Clients
from streams.directory.model import IntegrationState, PutIntegration
from streams.directory.service import Integrations
from streams.directory.writer import LogWriter
from streams.replays.book import TOPICS as REPLAY_TOPICS
from streams.replays.book import ReplayBook
from streams.replays.planner import Planner
from streams.replays.service import Replays
from streams.roles.integrations import Known, known
from streams.runners.global_ import Follow
from streams.runners.service import Runnable
from streams.settings import RentStreamSettings
from streams.syncs.book import SyncBook
from streams.syncs.service import Syncs
from streams.view.queries import Queries
from streams.web.api.app import build_api
from streams.web.api.tokens import SharedSecret, TokenVerifier, issue
from streams.web.ingress import first_verified
from streams.wiring import Dependencies, calls, redeliveries
from tests.streams.replays.parts import memory_replays
from tests.streams.web.api.parts import memory_view
from tests.world.folds import MemoryFolds, Tables
from tests.world.view import view_of
from tests.world.world import receiver_matches

DELAYS = ("1m", "2m", "5m", "10m")
KEY, SECRET, ZONE = "a-key-of-rentsync", "a-webhook-secret", "America/Edmonton"
ENCRYPTION_KEYS = "k1:" + "a2tr" * 10 + "a2s="
"""One key of 32 bytes."""
STORY = "a story"
"""Who changes integrations here."""

T = TypeVar("T")


class Near(httpx.ASGITransport):
    """Leads to an app in the same process; an answer that breaks off is what a network makes of it."""

    def __init__(self, app: Any, clock: MovableClock) -> None:
        super().__init__(app)
        self._clock = clock
        self.latency = 0.0
        """Seconds that every answer takes."""
        self.silent_for: float | None = None
        """Not null: nothing is answered, and the client gives up after so many seconds."""
        self.spans: list[tuple[float, float]] = []
        """When each call began and when it was answered."""
        self.answers: list[tuple[float, int, float | None]] = []
        """When each answered call began, its status, and the pause in seconds that was asked for."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began = self._clock.monotonic()
        try:
            if self.silent_for is not None:
                await self._clock.sleep(self.silent_for)
                raise httpx.ReadTimeout("nothing was answered", request=request)
            if self.latency:
                await self._clock.sleep(self.latency)
            response = await super().handle_async_request(request)
        except AssertionError:
            raise httpx.RemoteProtocolError("the answer broke off") from None
        finally:
            self.spans.append((began, self._clock.monotonic()))
        pause = response.headers.get("retry-after")
        self.answers.append((began, response.status_code, None if pause is None else float(pause)))
        response.headers["date"] = format_datetime(self._clock.now(), usegmt=True)
        return response


class Hosts(httpx.AsyncBaseTransport):
    """Leads to the app of each host."""

    def __init__(self) -> None:
        self.apps: dict[str, Near] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        app = self.apps.get(request.url.host)
        if app is None:
            raise httpx.ConnectError(f"{request.url.host} does not exist")
        return await app.handle_async_request(request)

    async def aclose(self) -> None:
        """Stay open: the clients of all integrations share it."""


class Recorder(NullObserver):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, str], int] = {}
        self.letters: list[tuple[str, str]] = []
        self.facts: dict[str, int] = {}
        self.undelivered: dict[str, float] = {}
        self.doubts: dict[int, Mapping[Doubt, int]] = {}
        """How many units have each doubt, by partition."""
        self.open_letters: dict[int, Mapping[str, int]] = {}
        """How many deliveries have an open dead letter, by partition and system."""
        self.held_removals: dict[int, Mapping[str, int]] = {}
        """How many removals wait for a person, by partition and system."""
        self.doubt_changes: list[DoubtChange] = []
        self.breakers: dict[tuple[str, str], str] = {}
        """The last state of each breaker that ever moved, by org and integration."""

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        del seconds
        self.verdicts[flow, verdict] = self.verdicts.get((flow, verdict), 0) + 1

    def dead_letter(self, origin: str, reason: str) -> None:
        self.letters.append((origin, reason))

    def breaker_moved(self, org: str, integration: str, state: str) -> None:
        self.breakers[org, integration] = state

    def fold_counted(self, flow: str, record: Model, counts: Mapping[str, int]) -> None:
        del flow, record
        for name, number in counts.items():
            self.facts[name] = self.facts.get(name, 0) + number

    def dead_letters_open(self, partition: int, counts: Mapping[str, int]) -> None:
        self.open_letters[partition] = counts

    def removals_counted(self, partition: int, counts: Mapping[str, int]) -> None:
        self.held_removals[partition] = counts

    def doubt_changed(self, change: DoubtChange) -> None:
        self.doubt_changes.append(change)

    def doubts_counted(self, partition: int, counts: Mapping[Doubt, int]) -> None:
        self.doubts[partition] = counts

    def oldest_undelivered(self, sink: str, partition: int, seconds: float) -> None:
        del partition
        self.undelivered[sink] = max(seconds, 0.0)


@dataclass(slots=True)
class Site:
    """One org: an account of its own in Buildium, and a receiver of its own."""

    org: str
    portfolio: Portfolio
    buildium: BuildiumStandIn
    rentsync: RentSyncStandIn
    to_buildium: Near
    to_rentsync: Near
    webhook_secret: str

    @property
    def buildium_url(self) -> str:
        return f"https://buildium-{self.org}.test/v1"

    @property
    def rentsync_url(self) -> str:
        return f"https://rentsync-{self.org}.test/v1/rent-roll/sync"


@dataclass(frozen=True, slots=True)
class SkewedClock:
    """A clock that is ahead of another one, or behind."""

    clock: Clock
    skew: timedelta

    def now(self) -> datetime:
        return self.clock.now() + self.skew

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)


class Process:
    """One process: its connection to the broker, and the integrations as it knows them."""

    def __init__(self, world: "MemoryWorld", env: Mapping[str, str] | None = None) -> None:
        self.backend = world.open_backend(world.broker)
        settings = RentStreamSettings.read({"RENTSTREAM_ENCRYPTION_KEYS": world.encryption_keys})
        given = world.env if env is None else env
        self.clock: Clock = SkewedClock(world.clock, world.skew) if world.skew else world.clock
        self.known: Known = known(given, settings, self.backend, self.clock, world.open_client)
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, *runners: Runnable) -> None:
        """Follow the integrations, and start the runners once all of them are known."""
        self.tasks.append(asyncio.create_task(self.known.follower.run()))
        self.tasks.append(asyncio.create_task(self._when_known(runners)))

    async def _when_known(self, runners: Sequence[Runnable]) -> None:
        await self.known.follower.caught_up()
        self.tasks += [asyncio.create_task(one.run()) for one in runners]

    def check(self) -> None:
        """Raise what any part of the process raised."""
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def kill(self) -> None:
        """End the process like ``kill -9``."""
        await self.backend.kill()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Worker(Process):
    """A stream worker."""

    def __init__(self, world: "MemoryWorld") -> None:
        super().__init__(world)
        self.clients = Clients(self.known.directory, self.clock, random.Random(1))
        replays = ReplayBook()
        self.following = Follow(self.backend, REPLAY_TOPICS, replays, self.clock)
        needs = Dependencies(
            directory=self.known.directory,
            replays=replays,
            clients=self.clients,
            clock=self.clock,
            observer=world.observed,
            rungs=ladder(",".join(world.delays)),
            partitions=world.broker.partitions,
            sweep_every=world.sweep_every,
            pulse_every=world.pulse_every,
            linger=0.5,
        )
        self.tasks.append(asyncio.create_task(self.following.run()))
        self.run(
            MemoryFolds(needs, self.backend, world.tables),
            *calls(needs, self.backend),
            *redeliveries(needs, self.backend),
        )


class Web(Process):
    """A web role: it takes webhooks and commands, and changes integrations."""

    def __init__(self, world: "MemoryWorld") -> None:
        super().__init__(world)
        writer = LogWriter(self.backend.producer(), world.broker.partitions)
        self.integrations: Integrations = self.known.service(writer, world.clock)
        followed = [topic.name for topic in topology.flow("follow_syncs").reads]
        book = SyncBook()
        follower = Follow(self.backend, followed, book, self.clock)
        self.syncs = Syncs(book, follower, writer, self.known.directory, self.clock)
        self.tasks.append(asyncio.create_task(follower.run()))
        self._world, self._writer = world, writer
        self._book = ReplayBook()
        self._replaying = Follow(self.backend, REPLAY_TOPICS, self._book, self.clock)
        self.tasks.append(asyncio.create_task(self._replaying.run()))
        self.run()

    @property
    def view(self) -> Queries:
        """Return a query view that has caught up."""
        return view_of(self._world.broker, self._world.tables)

    @property
    def replays(self) -> Replays:
        """Return the service of replays over the query view."""
        planner = Planner(self.view, self.backend, self._world.broker.partitions, self.clock)
        return Replays(self._book, self._replaying, self._writer, planner, self.clock)


class MemoryWorld:
    """Buildium, RentSync, a broker and some processes; time passes only when a story lets it.

    The org ``default`` is described by the environment by default; `add_org` stores others.
    """

    def __init__(
        self,
        portfolio: Callable[[MovableClock], Portfolio] | None = None,
        *,
        at: datetime | None = None,
        environment: bool = True,
        pulse_every: float = 0.0,
        sweep_every: float = 900.0,
        delays: Sequence[str] = DELAYS,
    ) -> None:
        self.clock = MovableClock(at) if at else MovableClock()
        self.pulse_every = pulse_every
        """Seconds; by default there are none, so that stories see what webhooks and sweeps do."""
        self.sweep_every = sweep_every
        """Seconds."""
        self.delays = tuple(delays)
        """Those of the retry ladder."""
        self.broker = MemoryBroker(self.clock, partitions=4)
        self.hosts = Hosts()
        self.sites: dict[str, Site] = {}
        self.encryption_keys = ENCRYPTION_KEYS
        self.open_backend: Callable[[MemoryBroker], MemoryBackend] = MemoryBackend
        """How the next process is connected."""
        site = self.site("default", (portfolio or seed)(self.clock), SECRET)
        self.env: dict[str, str] = self.environment_of(site) if environment else {}
        self.env["RENTSTREAM_TIMEZONE"] = ZONE
        self.skew = timedelta()
        """By how much the clock of the next process is ahead."""
        self.tables: Tables = {}
        self.observed = Recorder()
        self.workers: list[Worker] = []
        self.web: Web | None = None
        self.picked: set[int] = set()
        self._random = random.Random(7)

    @property
    def portfolio(self) -> Portfolio:
        return self.sites["default"].portfolio

    @property
    def buildium(self) -> BuildiumStandIn:
        return self.sites["default"].buildium

    @property
    def rentsync(self) -> RentSyncStandIn:
        return self.sites["default"].rentsync

    @property
    def to_buildium(self) -> Near:
        return self.sites["default"].to_buildium

    def open_client(self, **options: Any) -> httpx.AsyncClient:
        return http.open_client(**{**options, "allow_private": True}, transport=self.hosts)

    # --------------------------------------------------------------------------------------------------------- orgs

    def site(self, org: str, portfolio: Portfolio, webhook_secret: str) -> Site:
        """Serve an account and a receiver for an org, which is not connected to them yet."""
        buildium = BuildiumStandIn(portfolio, monotonic=self.clock.monotonic)
        rentsync = RentSyncStandIn(KEY, self.clock)
        site = Site(
            org=org,
            portfolio=portfolio,
            buildium=buildium,
            rentsync=rentsync,
            to_buildium=Near(buildium.app, self.clock),
            to_rentsync=Near(rentsync.app, self.clock),
            webhook_secret=webhook_secret,
        )
        self.hosts.apps[f"buildium-{org}.test"] = site.to_buildium
        self.hosts.apps[f"rentsync-{org}.test"] = site.to_rentsync
        self.sites[org] = site
        return site

    @staticmethod
    def environment_of(site: Site) -> dict[str, str]:
        """Return the settings that describe the integrations of a site."""
        return {
            "BUILDIUM_CLIENT_ID": site.buildium.client_id,
            "BUILDIUM_CLIENT_SECRET": site.buildium.client_secret,
            "BUILDIUM_BASE_URL": site.buildium_url,
            "BUILDIUM_WEBHOOK_SECRET": site.webhook_secret,
            "RENTSYNC_URL": site.rentsync_url,
            "RENTSYNC_API_KEY": KEY,
        }

    @staticmethod
    def buildium_of(site: Site, **settings: Any) -> PutIntegration:
        """Return the stored configuration of the account of a site."""
        return PutIntegration(
            system="buildium",
            mode=IntegrationMode.PRODUCTION,
            settings={"baseUrl": site.buildium_url, "timezone": ZONE, **settings},
            secrets={
                "clientId": SecretStr(site.buildium.client_id),
                "clientSecret": SecretStr(site.buildium.client_secret),
                "webhookSecret": SecretStr(site.webhook_secret),
            },
            properties_default=None,
            properties_on=None,
            properties_off=None,
        )

    @staticmethod
    def rentsync_of(site: Site, **settings: Any) -> PutIntegration:
        """Return the stored configuration of the receiver of a site."""
        return PutIntegration(
            system="rentsync",
            mode=IntegrationMode.PRODUCTION,
            settings={"url": site.rentsync_url, **settings},
            secrets={"apiKey": SecretStr(KEY)},
            properties_default=None,
            properties_on=None,
            properties_off=None,
        )

    async def add_org(self, org: str, portfolio: Portfolio | None = None, *, enabled: bool = True) -> Site:
        """Serve an account and a receiver for an org, store both integrations and, if wanted, enable them."""
        secret = f"webhook-secret-of-{org}"
        site = self.sites.get(org) or self.site(org, portfolio or seed(self.clock), secret)
        for name, body in (("buildium", self.buildium_of(site)), ("rentsync", self.rentsync_of(site))):
            await self.store(org, name, body)
            if enabled:
                await self.enable(org, name)
        return site

    async def add_delivered_orgs(self, *orgs: str) -> list[Site]:
        """Add orgs, and let time pass until the receiver of each lists all of its units and nothing is in progress."""
        sites = [await self.add_org(org) for org in orgs]
        await self.until(lambda: all(receiver_matches(site) for site in sites), within=120)
        await self.rest()
        return sites

    @asynccontextmanager
    async def beside(self, org: str = "default") -> AsyncIterator[Site]:
        """Have an org with the same ids on the same partition, whose data does not change.

        Whatever happens to ``org``, the other one has what is its, and gets at most its scheduled snapshots.
        """
        partition = partition_for(org, self.broker.partitions)
        names = (f"beside-{org}-{number}" for number in itertools.count())
        (site,) = await self.add_delivered_orgs(
            next(one for one in names if partition_for(one, self.broker.partitions) == partition)
        )
        accepted = len(site.rentsync.accepted)
        yield site
        assert receiver_matches(site)
        assert {batch.mode for batch in list(site.rentsync.accepted)[accepted:]} <= {"snapshot"}
        assert set(site.rentsync.statuses) == {200}

    @property
    def integrations(self) -> Integrations:
        assert self.web is not None, "start the world first"
        return self.web.integrations

    async def store(self, org: str, name: str, body: PutIntegration) -> IntegrationState:
        state, _ = await self.managed(self.integrations.put(org, name, body, STORY))
        return state

    async def enable(self, org: str, name: str) -> IntegrationState:
        return await self.managed(self.integrations.enable(org, name, STORY))

    async def disable(self, org: str, name: str) -> IntegrationState:
        return await self.managed(self.integrations.disable(org, name, STORY))

    async def delete(self, org: str, name: str) -> None:
        await self.managed(self.integrations.delete(org, name, STORY))

    async def state(self, org: str, name: str) -> IntegrationState:
        return await self.managed(self.integrations.get(org, name))

    async def ask(
        self, method: str, path: str, body: object = None, *, org: str = "default", key: str | None = None
    ) -> httpx.Response:
        assert self.web is not None, "start the world first"
        signing = SecretStr("a secret of the stories, long enough for HS256")
        clock = self.web.clock
        verifier = TokenVerifier(SharedSecret(signing), clock)
        view = memory_view()
        api = build_api(self.web.integrations, self.web.syncs, view, memory_replays(view, clock), verifier, version="1")
        token = issue(signing, STORY, org, None, timedelta(hours=1), clock.now())
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        client = httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://web.test")
        async with client:
            return await self.managed(client.request(method, path, content=content, headers=headers))

    async def managed(self, request: Awaitable[T]) -> T:
        """Return the result of a request about integrations; time passes until it is there."""
        task = asyncio.ensure_future(request)
        await self.until(task.done)
        return task.result()

    # ---------------------------------------------------------------------------------------------------- processes

    @property
    def processes(self) -> tuple[Process, ...]:
        """All processes that run."""
        return (*self.workers, *([self.web] if self.web else []))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, workers: int = 1) -> None:
        if self.web is None:
            self.web = Web(self)
        self.start_workers(workers)
        await self.pass_time(0.0)
        await self.until(lambda: self.web is not None and self.web.known.directory.caught_up)

    def start_workers(self, count: int = 1) -> None:
        """Start some more workers, and wait for nothing."""
        self.workers += [Worker(self) for _ in range(count)]

    async def stop(self) -> None:
        """Kill all processes at once: none waits for what another one has in progress."""
        for process in self.processes:
            process.backend.dead = True
        for process in self.processes:
            await process.kill()

    async def restart(self, encryption_keys: str | None = None, *, after: float = 0.0) -> None:
        """Kill all processes and, so many seconds later, start as many, perhaps with other encryption keys."""
        workers = len(self.workers)
        await self.stop()
        await self.clock.advance(after)
        self.workers, self.web = [], None
        self.encryption_keys = encryption_keys or self.encryption_keys
        await self.start(workers)

    async def kill_worker(self) -> None:
        """Kill the oldest worker, without any clean-up; time passes if others have to end calls before they go on."""
        killing = asyncio.ensure_future(self.workers.pop(0).kill())
        await settle()
        await self.until(killing.done)

    # -------------------------------------------------------------------------------------------------------- stories

    async def send_webhooks(
        self, events: Events, copies: int = 1, *, shuffled: bool = False, org: str = "default"
    ) -> None:
        """Send webhooks as Buildium does, perhaps more than once and in any order, to the address of the account."""
        site, token = self.sites[org], self._token(org)
        bodies = [event.body(site.portfolio.account) for event in events for _ in range(copies)]
        if shuffled:
            self._random.shuffle(bodies)
        for body in bodies:
            self.receive_webhook(body, site.webhook_secret, token)

    def _token(self, org: str) -> str | None:
        assert self.web is not None
        entry = self.web.known.directory.get(org, "buildium")
        return entry.webhook_token if entry else None

    def receive_webhook(self, body: bytes, secret: str, token: str | None = None) -> FetchRequest:
        """Verify a webhook as the ingress does, and write it."""
        assert self.web is not None
        now = self.clock.now()
        stamp = str(int(now.timestamp()))
        headers = [
            (b"buildium-webhook-timestamp", stamp.encode()),
            (b"buildium-webhook-signature", sign(body, stamp, SecretStr(secret)).encode()),
        ]
        webhook = first_verified(self.web.known.directory.readers("buildium", token, body), headers, body, now)
        assert isinstance(webhook, FetchRequest), webhook
        self.broker.append(ProducerRecord(topics.WEBHOOKS.name, webhook.org.encode(), encode(webhook)))
        return webhook

    async def put(
        self, topic: str, value: bytes | None, *, key: bytes | None = b"default", partition: int | None = None
    ) -> None:
        place = partition_of(key or b"default", self.broker.partitions) if partition is None else partition
        self.broker.append(ProducerRecord(topic, cast("bytes", key), value), place)

    def read(self, topic: str) -> Sequence[Record]:
        return self.broker.read(topic)

    async def rest(self) -> None:
        """Wait until nothing is in progress and nothing waits, here for at most the whole ladder."""
        await self.until(lambda: not any(self.broker.lag(group) for group in topology.groups(self.delays)), within=3600)

    async def pass_time(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for process in self.processes:
            process.check()

    async def until(self, holds: Callable[[], bool], within: float = 60.0) -> float:
        """Let time pass until something holds; return the seconds that it took. Raise `TimeoutError`."""
        began = self.clock.monotonic()
        while not holds():
            if self.clock.monotonic() - began > within:
                raise TimeoutError(f"it did not come true within {within} s")
            await self.pass_time(0.1)
        return self.clock.monotonic() - began


def seed(clock: MovableClock) -> Portfolio:
    return seed_portfolio(clock, timezone=ZONE)
