"""The query view: how fast records become rows, and how fast many readers get answers.

Rows: units of the rent roll, as their changelog has them, are projected and written to SQLite and to PostgreSQL; the
reference writes the same rows to SQLite with nothing else. Reads: a process serves the API over a view of 100,000
units, another one asks for pages of the rent roll, single properties, searches, deliveries and webhooks at a constant
rate; the reference is ``/healthz`` at that rate.

    python -m benchmarks.view [--units 100000] [--rate 1000] [--seconds 10]
"""

import argparse
import asyncio
import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from starlette.types import ASGIApp

from benchmarks.kit import Result, at_least, at_most, show
from benchmarks.latency import percentile
from benchmarks.system import free_port
from schemas import topics
from schemas.pms import FetchOrigin, FetchRequest
from streams.core.flows import Record
from streams.view import tables
from streams.view.database import Database, parse_url
from streams.view.queries import Queries
from streams.web.api.app import build_api
from streams.web.api.tokens import SharedSecret, TokenVerifier, issue
from streams.web.server import run_http
from tests.postgres import postgres
from tests.streams.replays.parts import memory_replays
from tests.streams.view.parts import NOON, View, account, building, delivery, known, lease, record, unit
from tests.streams.web.api.parts import MemoryIntegrations, MemorySyncs, MovableClock

SECRET = SecretStr("a secret of the benchmark, long enough for HS256")
UNITS_OF_A_PROPERTY = 25
BATCH = 1000
CONNECTIONS = 20


def records(units: int) -> Iterator[Record]:
    """Yield the rows of a rent roll: properties, then units, two of three of them with a lease."""
    yield account()
    for number in range(units // UNITS_OF_A_PROPERTY):
        yield building(number)
    for number in range(units):
        leases = [lease(number, number)] if number % 3 else []
        yield unit(number, number // UNITS_OF_A_PROPERTY, leases=leases)


def more(units: int) -> Iterator[Record]:
    """Yield what a receiver knows, and webhooks."""
    for number in range(units // UNITS_OF_A_PROPERTY):
        yield delivery(number)
    for number in range(units):
        yield known(number, b"12345678", number // UNITS_OF_A_PROPERTY)
    for number in range(min(units, 10_000)):
        webhook = FetchRequest(
            org="default",
            connection="buildium",
            origin=FetchOrigin.WEBHOOK,
            event="Rental.Updated",
            entity=number,
            received_at=NOON + timedelta(milliseconds=number),
        )
        yield record(topics.WEBHOOKS.name, webhook, offset=number)


def write(database: Database, made: Sequence[Record]) -> float:
    """Return the records a second that are projected and written."""
    view = View(database)
    started = time.perf_counter()
    for begin in range(0, len(made), BATCH):
        view.write(*made[begin : begin + BATCH])
    return len(made) / (time.perf_counter() - started)


def bare(folder: Path, database: Database) -> float:
    """Return the rows a second that SQLite takes: the same units, with nothing around it."""
    with database.reading() as connection:
        rows = [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM rent_roll")]
    columns = ", ".join(column.name for column in tables.UNITS.c)
    other = sqlite3.connect(folder / "bare.db", isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("PRAGMA synchronous=NORMAL")
    other.execute(f"CREATE TABLE rent_roll ({columns}, PRIMARY KEY (org_id, connection, unit_id))")
    insert = f"INSERT INTO rent_roll VALUES ({', '.join('?' * len(tables.UNITS.c))})"
    started = time.perf_counter()
    for begin in range(0, len(rows), BATCH):
        other.execute("BEGIN")
        other.executemany(insert, rows[begin : begin + BATCH])
        other.execute("COMMIT")
    seconds = time.perf_counter() - started
    other.close()
    return len(rows) / seconds


# ---------------------------------------------------------------------------------------------------------------- reads


def serve(port: int, path: str) -> None:
    """Serve the API over a database."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[ASGIApp]:
        clock = MovableClock()
        database = Database(parse_url(f"sqlite:///{path}"))
        verifier = TokenVerifier(SharedSecret(SECRET), clock)
        view, integrations, syncs = Queries(database), MemoryIntegrations(clock), MemorySyncs(clock)
        yield build_api(integrations, syncs, view, memory_replays(view, clock), verifier, version="1")
        database.close()

    run_http(opened, "127.0.0.1", port)


@contextmanager
def server(path: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.view", "--serve", str(port), "--path", str(path)])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def mixed(units: int, order: random.Random) -> str:
    """Return the path of one of the reads that a portal makes."""
    one = order.randrange(units)
    return order.choice(
        [
            f"/api/rent-roll?property={one // UNITS_OF_A_PROPERTY}",
            f"/api/rent-roll?property={one // UNITS_OF_A_PROPERTY}&state=available",
            f"/api/rent-roll?limit=25&cursor=buildium.{one}",
            f"/api/rent-roll?limit=20&state=available&cursor=buildium.{one}",
            f"/api/deliveries?property={one // UNITS_OF_A_PROPERTY}",
            "/api/webhooks?limit=20",
        ]
    )


class Reader:
    """One connection that is kept alive."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._token}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        return int(head.split(b" ", 2)[1])


async def read(port: int, paths: Sequence[str], rate: float) -> tuple[list[float], int]:
    """Ask at a constant rate, whatever the answers take; return seconds of each, and how many were no success."""
    token = issue(SECRET, "reader", "default", None, timedelta(hours=1), MovableClock().now())
    idle: asyncio.Queue[Reader] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(Reader(port, token))
    seconds: list[float] = []
    failed = 0

    async def one(path: str, due: float) -> None:
        nonlocal failed
        reader = await idle.get()
        try:
            failed += await reader.get(path) != 200
        finally:
            idle.put_nowait(reader)
        seconds.append(time.perf_counter() - due)

    started = time.perf_counter()
    tasks = set()
    for number, path in enumerate(paths):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.add(asyncio.create_task(one(path, due)))
    await asyncio.gather(*tasks)
    return seconds, failed


async def warm(port: int, paths: Sequence[str]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            await read(port, paths, 100)
            return
        await asyncio.sleep(0.1)


def run(units: int, rate: float, seconds: float) -> list[Result]:
    made, extra = list(records(units)), list(more(units))
    results = []
    with tempfile.TemporaryDirectory(prefix="bench-view-") as name:
        folder = Path(name)
        database = Database(parse_url(f"sqlite:///{folder}/view.db"))
        database.migrate()
        to_sqlite = write(database, made)
        reference = bare(folder, database)
        results += [
            at_least("view: rows to SQLite", to_sqlite, "rows/s", 5000),
            Result("view: rows to SQLite / the bare inserts", to_sqlite / reference, "x"),
        ]
        write(database, extra)
        database.close()
        with postgres() as url:
            server_side = Database(parse_url(url))
            server_side.migrate()
            results.append(at_least("view: rows to PostgreSQL", write(server_side, made), "rows/s", 10_000))
            server_side.close()
        order = random.Random(7)
        with server(folder / "view.db") as port:
            count = int(rate * seconds)
            asyncio.run(warm(port, [mixed(units, order) for _ in range(200)]))
            plain, _ = asyncio.run(read(port, ["/healthz"] * count, rate))
            found, failed = asyncio.run(read(port, [mixed(units, order) for _ in range(count)], rate))
        print(json.dumps({"reads": len(found), "failed": failed, "seconds": round(max(found), 3)}))
        p99 = percentile(found, 99)
        results += [
            Result(f"view: reads p50 at {rate:,.0f}/s", percentile(found, 50) * 1000, "ms"),
            at_most(f"view: reads p99 at {rate:,.0f}/s", p99 * 1000, "ms", 20),
            Result("view: reads p99 / that of /healthz", p99 / percentile(plain, 99), "x"),
        ]
    return results


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--units", type=int, default=100_000)
    arguments.add_argument("--rate", type=float, default=1000.0, help="reads a second")
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--path", help=argparse.SUPPRESS)
    options: Any = arguments.parse_args()
    if options.serve is not None:
        serve(options.serve, options.path)
    else:
        show(run(options.units, options.rate, options.seconds))


if __name__ == "__main__":
    main()
