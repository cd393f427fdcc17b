"""Many orgs on one machine: all of their accounts are filled, swept and pulsed while changes come in.

One web role and two workers run as processes; the accounts and the receivers are stand-ins in this process, as cheap
as they can be: the accounts have equal entities, whose JSON is made once. It measures the fill, the freshness of the
changes, CPU, memory and disk, the bytes of changelogs, the takeover when a worker is killed, and its recovery after
its rows were lost. Freshness is from the webhook to the batch at the receiver, so it includes the linger.

    python -m benchmarks.fleet [--orgs 1000] [--units 2500] [--minutes 15] [--changes 50]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import httpx
import jwt
import msgspec
from pydantic import SecretStr

from benchmarks.kit import Result, at_most, show
from benchmarks.latency import percentile
from benchmarks.system import free_port, ready
from connectors.buildium.signature import sign
from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, Portfolio, bulk_portfolio
from connectors.clock import SystemClock
from connectors.serving import running
from schemas.base import EntityKind
from streams.local.embedded_kafka import EmbeddedKafka

SECRET: Final = "a webhook secret of the benchmark"
JWT_SECRET: Final = "a secret of thirty-two bytes and more"
PARTITIONS: Final = 12
WORKERS: Final = 2
PAGE: Final = 1000
FILL_SECONDS: Final = 3600.0
LAST_SECONDS: Final = 300.0
"""The longest wait for the last changes, in seconds."""
LOST_SECONDS: Final = 60.0
"""Seconds after which a change that has not arrived is reported."""

_LISTS: Final = {
    "/v1/rentals": EntityKind.PROPERTY,
    "/v1/rentals/units": EntityKind.UNIT,
    "/v1/leases": EntityKind.LEASE,
    "/v1/rentals/units/listings": EntityKind.LISTING,
}
_ENTITIES: Final = (
    (re.compile(r"/v1/rentals/(\d+)"), EntityKind.PROPERTY),
    (re.compile(r"/v1/rentals/units/(\d+)"), EntityKind.UNIT),
    (re.compile(r"/v1/leases/(\d+)"), EntityKind.LEASE),
    (re.compile(r"/v1/rentals/units/(\d+)/listing"), EntityKind.LISTING),
)


# ------------------------------------------------------------------------------------------------------- the stand-ins


class SentUnit(msgspec.Struct):
    """What the benchmark reads of a unit in a batch."""

    unit_id: int
    base_rent: float | None


class Sent(msgspec.Struct):
    """What the benchmark reads of a batch."""

    units: list[SentUnit]


@dataclass(slots=True)
class Changed:
    """A changed unit of an org: its JSON, and when it was changed."""

    body: bytes
    at: datetime
    start: float
    taken: float = 0.0
    """When its webhook was answered (monotonic); 0 before that."""
    fetched: float = 0.0
    """When it was first read (monotonic); 0 before that."""


@dataclass(frozen=True, slots=True)
class Journey:
    """What each step of a change took, in seconds, and when it arrived (monotonic)."""

    arrived: float
    taking: float
    """From the change to the answer to its webhook."""
    fetching: float
    """From that answer to the first read of the unit; negative when a pulse was faster."""
    delivering: float
    """From the read to the batch at the receiver, the linger included."""

    @property
    def whole(self) -> float:
        return self.taking + self.fetching + self.delivering


@dataclass(slots=True)
class Outside:
    """All accounts under ``/pms/{org}``, and all receivers under ``/receiver/{org}``: an ASGI app."""

    portfolio: Portfolio
    changed: dict[str, dict[int, Changed]] = field(default_factory=dict)
    known: dict[str, set[int]] = field(default_factory=dict)
    """Units that each receiver was sent."""
    waiting: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    """The rent and the start of every change that has not arrived."""
    journeys: list[Journey] = field(default_factory=list)
    calls: int = 0
    batches: int = 0
    _pages: dict[tuple[EntityKind, int], tuple[list[int], bytes]] = field(default_factory=dict)
    _decode: msgspec.json.Decoder[Sent] = field(default_factory=lambda: msgspec.json.Decoder(Sent))

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        _, side, org, path = scope["path"].split("/", 3)
        if side == "receiver":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            self._take(org, self._decode.decode(body))
            status, answer, total = 200, b"{}", None
        else:
            self.calls += 1
            status, answer, total = self._answer(org, "/" + path, scope["query_string"].decode())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        headers.append((b"date", datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()))
        if total is not None:
            headers.append((b"x-total-count", b"%d" % total))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def change(self, org: str, unit: int, rent: int) -> bytes:
        """Change the rent of a unit; return the body of its webhook."""
        row = json.loads(self.portfolio.row(EntityKind.UNIT, unit)) | {"MarketRent": float(rent)}
        change = Changed(json.dumps(row).encode(), datetime.now(UTC), time.monotonic())
        self.changed.setdefault(org, {})[unit] = change
        self.waiting[org, unit] = float(rent), change.start
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {"EventName": "RentalUnit.Updated", "EventDateTime": now, "AccountId": 1, "UnitId": unit}
        return json.dumps(event).encode()

    def taken(self, org: str, unit: int) -> None:
        """Note that the webhook of a change was answered."""
        self.changed[org][unit].taken = time.monotonic()

    def _take(self, org: str, sent: Sent) -> None:
        self.batches += 1
        now = time.monotonic()
        known = self.known.setdefault(org, set())
        for unit in sent.units:
            known.add(unit.unit_id)
            wanted = self.waiting.get((org, unit.unit_id))
            if wanted is not None and wanted[0] == unit.base_rent:
                del self.waiting[org, unit.unit_id]
                change = self.changed[org][unit.unit_id]
                taken, fetched = change.taken or now, change.fetched or now
                self.journeys.append(Journey(now, taken - change.start, fetched - taken, now - fetched))

    def _answer(self, org: str, path: str, query: str) -> tuple[int, bytes, int | None]:
        if path == "/v1/administration/account":
            return 200, b'{"Id": 1, "CompanyName": "Fleet"}', None
        kind = _LISTS.get(path)
        if kind is not None:
            return 200, *self._list(org, kind, parse_qs(query))
        for pattern, one in _ENTITIES:
            if found := pattern.fullmatch(path):
                return self._one(org, one, int(found[1]))
        return 200, b"[]", 0

    def _one(self, org: str, kind: EntityKind, number: int) -> tuple[int, bytes, int | None]:
        if kind is EntityKind.UNIT and (changed := self.changed.get(org, {}).get(number)):
            return 200, _read(changed), None
        if number in self.portfolio.entities(kind):
            return 200, self.portfolio.row(kind, number), None
        return 404, b'{"UserMessage": "not found", "ErrorCode": null, "Errors": []}', None

    def _list(self, org: str, kind: EntityKind, query: Mapping[str, list[str]]) -> tuple[bytes, int]:
        changed = self.changed.get(org, {}) if kind is EntityKind.UNIT else {}
        if since := query.get("lastupdatedfrom"):
            start = datetime.fromisoformat(since[0])
            bodies = [_read(one) for one in changed.values() if one.at >= start - timedelta(seconds=1)]
            return b"[" + b",".join(bodies) + b"]", len(bodies)
        if wanted := query.get("propertyids"):
            ids = [number for one in wanted for number in self._of_property(kind, int(one))]
            return b"[" + b",".join(self._row(kind, number, changed) for number in ids) + b"]", len(ids)
        offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
        total = len(self.portfolio.live_leases() if kind is EntityKind.LEASE else self.portfolio.ids(kind))
        ids, page = self._page(kind, offset, min(limit, PAGE))
        if not any(number in changed for number in ids):
            return page, total
        return b"[" + b",".join(self._row(kind, number, changed) for number in ids) + b"]", total

    def _row(self, kind: EntityKind, number: int, changed: Mapping[int, Changed]) -> bytes:
        return _read(changed[number]) if number in changed else self.portfolio.row(kind, number)

    def _of_property(self, kind: EntityKind, number: int) -> list[int]:
        units = self.portfolio.units_of[number]
        if kind is EntityKind.LEASE:
            return [lease for unit in units for lease in self.portfolio.leases_of.get(unit, ())]
        return list(units)

    def _page(self, kind: EntityKind, offset: int, limit: int) -> tuple[list[int], bytes]:
        found = self._pages.get((kind, offset))
        if found is None or len(found[0]) > limit:
            every = self.portfolio.live_leases() if kind is EntityKind.LEASE else self.portfolio.ids(kind)
            ids = list(every[offset : offset + limit])
            found = ids, b"[" + b",".join(self.portfolio.row(kind, number) for number in ids) + b"]"
            if limit == PAGE:
                self._pages[kind, offset] = found
        return found


def _read(change: Changed) -> bytes:
    change.fetched = change.fetched or time.monotonic()
    return change.body


# ---------------------------------------------------------------------------------------------------------- processes


class Role:
    """One process of the system."""

    def __init__(self, env: Mapping[str, str], log: Path, *arguments: str) -> None:
        self._log = log
        self.admin = f"127.0.0.1:{free_port()}"
        self._env = {**env, "RENTSTREAM_ADMIN": self.admin}
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streams.cli", *self._arguments]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log)

    def cpu(self) -> float:
        """Return the CPU seconds so far; 0 without ``/proc``."""
        return _cpu(self.process.pid)

    def peak_gib(self) -> float:
        """Return the peak memory in GiB; 0 without ``/proc``."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / (1 << 20)
        return 0.0

    async def owned(self) -> int:
        """Return how many partitions it owns and processes."""
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                answer = await client.get(f"http://{self.admin}/readyz")
                if answer.status_code == 200 and (found := re.search(r"owns (\d+) partitions", answer.text)):
                    return int(found[1])
        return 0

    async def scanning(self) -> float:
        """Return the seconds that scans have computed so far."""
        lines = await self.shown("rentstream_scan_seconds_sum")
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def shown(self, *parts: str) -> list[str]:
        """Return the samples of metrics that are not zero and have one of these texts in their names."""
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            lines = (await client.get(f"http://{self.admin}/metrics")).text.splitlines()
        names = [line for line in lines if not line.startswith("#") and any(part in line for part in parts)]
        return [line for line in names if not line.endswith(" 0.0")][:40]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def _cpu(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _broker_cpu(folder: Path) -> float:
    """Return the CPU seconds of the embedded Kafka, its watcher included; 0 without ``/proc``."""
    total = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"kafka.Kafka" in (entry / "cmdline").read_bytes() and folder in (entry / "cwd").readlink().parents:
                total += _cpu(int(entry.name))
    return total


def _size(folder: Path, pattern: str = "*") -> int:
    total = 0
    for one in folder.glob(pattern):
        for file in (one, *one.rglob("*")):
            with contextlib.suppress(OSError):
                if file.is_file():
                    total += file.stat().st_blocks * 512
    return total


async def until(what: str, is_so: Any, seconds: float) -> float:
    """Return the seconds until a condition holds. Raise `TimeoutError`."""
    started = time.monotonic()
    while not await is_so():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.1)
    return time.monotonic() - started


# ------------------------------------------------------------------------------------------------------------- the run


class Fleet:
    """The system under test with its outside."""

    def __init__(self, options: argparse.Namespace, outside: Outside, url: str, folder: Path, kafka: str) -> None:
        self.options = options
        self.outside = outside
        self.url = url
        self.folder = folder
        self.orgs = [f"org-{number:04}" for number in range(options.orgs)]
        self.addresses: dict[str, str] = {}
        """Where each org's webhooks go."""
        self.refused = 0
        http = f"127.0.0.1:{free_port()}"
        self.base = f"http://{http}"
        self.env = {
            **os.environ,  # noqa: TID251 -- the roles need PATH and the like
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "RENTSTREAM_HTTP": http,
            "RENTSTREAM_DATA": str(folder / "data"),
            "RENTSTREAM_PARTITIONS": str(PARTITIONS),
            "RENTSTREAM_JWT_SECRET": JWT_SECRET,
            "RENTSTREAM_ALLOW_PRIVATE": "1",
            "RENTSTREAM_TIMEZONE": "America/Edmonton",
            "BUILDIUM_SYNC_ENABLED": "false",
        }

    def token(self, org: str) -> str:
        claims = {"sub": "benchmark", "org": org, "exp": datetime.now(UTC) + timedelta(hours=6)}
        return jwt.encode(claims, JWT_SECRET, algorithm="HS256")

    async def connect(self) -> None:
        """Store and enable both integrations of every org."""
        turns = asyncio.Semaphore(16)
        async with httpx.AsyncClient(base_url=self.base, timeout=60.0, trust_env=False) as client:

            async def one(org: str) -> None:
                async with turns:
                    head = {"authorization": f"Bearer {self.token(org)}"}
                    source = {
                        "system": "buildium",
                        "mode": "sandbox",
                        "settings": {"baseUrl": f"{self.url}/pms/{org}/v1", "timezone": "America/Edmonton"},
                        "secrets": {"clientId": DEMO_ID, "clientSecret": DEMO_SECRET, "webhookSecret": SECRET},
                    }
                    sink = {
                        "system": "rentsync",
                        "mode": "sandbox",
                        "settings": {"url": f"{self.url}/receiver/{org}/sync"},
                        "secrets": {"apiKey": "key-of-the-benchmark"},
                    }
                    for name, body in (("rentsync", sink), ("buildium", source)):
                        answer = await client.put(f"/api/integrations/{name}", json=body, headers=head)
                        if answer.is_error:
                            raise RuntimeError(f"{name} of {org}: {answer.status_code} {answer.text}")
                        self.addresses[org] = self.base + re.sub(
                            r"^https?://[^/]+", "", answer.json()["webhookUrl"] or ""
                        )
                        (await client.post(f"/api/integrations/{name}/enable", headers=head)).raise_for_status()

            await asyncio.gather(*(one(org) for org in self.orgs))

    async def filled(self) -> bool:
        """Return whether every receiver was sent every unit."""
        known = self.outside.known
        return len(known) == len(self.orgs) and all(len(units) == self.options.units for units in known.values())

    async def make_changes(self, stop: asyncio.Event) -> None:
        """Change rents and send their webhooks, so many a second, until stopped."""
        pick, sending, secret = random.Random(1), set[asyncio.Task[None]](), SecretStr(SECRET)
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(timeout=30.0, trust_env=False, limits=limits) as client:

            async def send(org: str, unit: int, body: bytes) -> None:
                stamp = str(int(time.time()))
                head = {"buildium-webhook-timestamp": stamp, "buildium-webhook-signature": sign(body, stamp, secret)}
                try:
                    answer = await client.post(self.addresses[org], content=body, headers=head)
                    self.refused += answer.status_code != 202
                    self.outside.taken(org, unit)
                except httpx.HTTPError:
                    self.refused += 1

            due, number = time.monotonic(), 0
            while not stop.is_set():
                due, number = due + 1 / self.options.changes, number + 1
                org, unit = pick.choice(self.orgs), pick.randrange(1, self.options.units + 1)
                if unit % 20 and (org, unit) not in self.outside.waiting:  # the others have a listing with its own rent
                    task = asyncio.create_task(send(org, unit, self.outside.change(org, unit, 1000 + number % 900_000)))
                    sending.add(task)
                    task.add_done_callback(sending.discard)
                await asyncio.sleep(max(due - time.monotonic(), 0.0))
            await asyncio.gather(*sending)

    def between(self, start: float, end: float) -> list[Journey]:
        """Return the changes that arrived in a period."""
        return [one for one in self.outside.journeys if start <= one.arrived < end]


async def measure(options: argparse.Namespace, folder: Path, kafka: str) -> list[Result]:
    print(f"{options.orgs} orgs of {options.units} units, {options.changes} changes a second", flush=True)
    portfolio = bulk_portfolio(SystemClock(), options.units, per_property=50, warm=True)
    outside = Outside(portfolio)
    async with running(outside) as url:
        fleet = Fleet(options, outside, url, folder, kafka)
        made = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "streams.cli", "topics", "--apply"],
            env=fleet.env,
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await made.wait():
            raise RuntimeError("cannot create the topics")
        web = Role(fleet.env, folder / "web.log", "http")
        workers = [
            Role(fleet.env, folder / f"worker-{number}.log", "worker", "--name", f"w{number}")
            for number in range(WORKERS)
        ]
        try:
            await asyncio.gather(*(ready(one.admin) for one in (web, *workers)))
            return await _phases(fleet, web, workers)
        except Exception:
            for log in folder.glob("*.log"):
                print(f"--- {log.name}\n{log.read_text(encoding='utf-8')[-2000:]}", file=sys.stderr)
            raise
        finally:
            for one in (*workers, web):
                await asyncio.to_thread(one.stop)


async def _phases(fleet: Fleet, web: Role, workers: list[Role]) -> list[Result]:
    options, outside, log = fleet.options, fleet.outside, fleet.folder / "kafka" / "data"
    units = options.orgs * options.units
    started = time.monotonic()
    await fleet.connect()
    print(f"connected after {time.monotonic() - started:.0f} s", flush=True)
    filling = asyncio.create_task(until("the fill", fleet.filled, FILL_SECONDS))
    while not filling.done():
        await asyncio.wait({filling}, timeout=30)
        known = sum(len(one) for one in outside.known.values())
        print(f"  {known:,} of {units:,} units are known to their receivers", flush=True)
    await filling
    filled = time.monotonic() - started
    print(f"filled after {filled:.0f} s, {units / filled:,.0f} units a second", flush=True)

    everyone = {"web": web, **{f"worker {number}": one for number, one in enumerate(workers)}}
    await asyncio.sleep(10)
    stop, began = asyncio.Event(), time.monotonic()
    before, calls, batches = {name: one.cpu() for name, one in everyone.items()}, outside.calls, outside.batches
    kafka_before, own_before, changelogs = _broker_cpu(fleet.folder), time.process_time(), _size(log, "*-changelog-*")
    scanned = sum([await one.scanning() for one in workers])
    changing = asyncio.create_task(fleet.make_changes(stop))
    await asyncio.sleep(options.minutes * 60)
    ended = time.monotonic()
    steady = fleet.between(began, ended)
    whole = [one.whole for one in steady]
    lost = sum(ended - at > LOST_SECONDS for _, at in outside.waiting.values())
    growth = _size(log, "*-changelog-*") - changelogs
    print(
        f"\n{options.minutes:g} minutes: {len(steady):,} changes arrived, {lost} did not within {LOST_SECONDS:.0f} s, "
        f"{fleet.refused} webhooks were refused, {outside.calls - calls:,} calls, {outside.batches - batches:,} batches"
    )
    print(
        "cores used: "
        + ", ".join(
            f"{name} {cpu / (ended - began):.2f}"
            for name, cpu in (
                *((name, one.cpu() - before[name]) for name, one in everyone.items()),
                ("Kafka", _broker_cpu(fleet.folder) - kafka_before),
                ("stand-ins and load", time.process_time() - own_before),
            )
        )
    )
    scanning = 100 * (sum([await one.scanning() for one in workers]) - scanned) / (ended - began)
    _show_steps(steady, began)
    print("peak memory, GiB: " + ", ".join(f"{name} {one.peak_gib():.2f}" for name, one in everyone.items()))
    disk = _size(fleet.folder / "data") / (1 << 30), _size(log) / (1 << 30)
    print(f"disk, GiB: rows {disk[0]:.2f}, Kafka {disk[1]:.2f}", flush=True)
    peak = max(one.peak_gib() for one in workers)

    victim, heir = workers
    killed = time.monotonic()
    victim.stop(signal.SIGKILL)

    async def taken() -> bool:
        return await heir.owned() == PARTITIONS

    takeover = await until("the takeover", taken, 300)
    await asyncio.sleep(15)
    during = fleet.between(killed, time.monotonic())
    print(
        f"\ntakeover after {takeover:.1f} s; changes from the kill on took at most "
        f"{max((one.whole for one in during), default=0):.1f} s",
        flush=True,
    )
    for path in (fleet.folder / "data" / "workers").glob("*"):
        if path.name.endswith("w0"):
            shutil.rmtree(path)
    restarted = time.monotonic()
    victim.start()

    async def back() -> bool:
        return await victim.owned() == PARTITIONS // WORKERS

    await until("the recovery", back, 1800)
    recovery = time.monotonic() - restarted
    await asyncio.sleep(10)
    stop.set()
    await changing

    async def settled() -> bool:
        return not outside.waiting

    print(f"recovery of half of the rows from nothing {recovery:.1f} s", flush=True)
    try:
        rest = await until("the last changes", settled, LAST_SECONDS)
        print(f"all changes arrived {rest:.1f} s after the last")
    except TimeoutError:
        ages = sorted(time.monotonic() - at for _, at in outside.waiting.values())
        print(
            f"{len(ages)} changes did not arrive, made {ages[0]:.0f} to {ages[-1]:.0f} s ago; {fleet.refused} refused"
        )
        for one in everyone.values():
            print("  " + "; ".join(await one.shown("parked", "dead_letters", "stopped", "oldest", "lag_seconds")))
    return [
        Result("fleet: fill", units / filled, "units/s"),
        Result("fleet: freshness p50", percentile(whole, 50), "s"),
        at_most("fleet: freshness p99", percentile(whole, 99), "s", 2),
        at_most("fleet: scans of all rows, of a core", scanning, "%", 1),
        at_most("fleet: peak memory of a worker", peak, "GiB", 1.5),
        Result("fleet: changelogs", growth / max(len(steady), 1), "bytes/ch."),
        at_most("fleet: takeover by the other worker", takeover, "s", 15),
        Result("fleet: recovery without rows", recovery, "s"),
    ]


def _show_steps(journeys: list[Journey], began: float) -> None:
    """Print what each step takes, of all changes and of the slowest hundredth, and when those arrived."""
    slowest = sorted(journeys, key=lambda one: one.whole)[-max(len(journeys) // 100, 1) :]
    for name, some in (("all", journeys), ("slowest 1 %", slowest)):
        steps = {
            "webhook": [one.taking for one in some],
            "until read": [one.fetching for one in some],
            "until sent": [one.delivering for one in some],
        }
        shown = (f"{step} {percentile(taken, 50):.2f} / {percentile(taken, 99):.2f}" for step, taken in steps.items())
        print(f"steps of {name}, p50 / p99 in s: {', '.join(shown)}")
    print("the slowest arrived at s " + ", ".join(f"{at:.0f}" for at in sorted(one.arrived - began for one in slowest)))


@contextlib.contextmanager
def _broker(bootstrap: str | None, folder: Path) -> Iterator[str]:
    if bootstrap:
        yield bootstrap
        return
    with EmbeddedKafka(folder) as kafka:
        yield kafka.bootstrap_servers


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bootstrap", help="host:port of a broker (otherwise the embedded one is started)")
    arguments.add_argument("--orgs", type=int, default=1000)
    arguments.add_argument("--units", type=int, default=2500, help="units of each org")
    arguments.add_argument("--minutes", type=float, default=15.0, help="how long changes come in")
    arguments.add_argument("--changes", type=float, default=50.0, help="changes a second")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as name:
        folder = Path(name)
        with _broker(options.bootstrap, folder) as kafka:
            show(asyncio.run(measure(options, folder, kafka)))


if __name__ == "__main__":
    main()
