"""The query view shows what the rent roll is, what receivers know and what failed; it can be dropped at any time."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import sqlalchemy as sa

from streams.view import tables
from streams.view.database import Database, parse_url
from tests.postgres import postgres
from tests.world import listed_rent, pick, receiver_matches
from tests.world.cluster import ClusterWorld, Process
from tests.world.commands import accepted, office, until_it_is


async def ask(world: ClusterWorld, path: str, **more: Any) -> httpx.Response:
    answer = await world.call_api("GET", path, "default", **more)
    assert answer.status_code in {200, 304}, answer.text
    return answer


async def complete(world: ClusterWorld) -> None:
    """Wait until everything is in the view that is on the topics now."""
    now = world.clock.now()

    async def is_in() -> bool:
        as_of = (await ask(world, "/api/webhooks?limit=1")).json()["asOf"]
        return as_of is not None and as_of >= now.isoformat().replace("+00:00", "Z")

    await world.eventually(is_in, "the view is complete", every=0.2)


async def roll(world: ClusterWorld, query: str = "") -> list[dict[str, Any]]:
    """Read all pages of the rent roll."""
    units: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await ask(world, f"/api/rent-roll?limit=50{cursor}{query}")).json()
        units += page["items"]
        if page["nextCursor"] is None:
            return units
        cursor = f"&cursor={page['nextCursor']}"


def dump(world: ClusterWorld) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the view but those about its own work."""
    database = Database(parse_url(f"sqlite:///{world.folder}/data/rentstream.db"))
    own = {tables.POSITIONS, tables.STATE, tables.TERMS}
    with database.reading() as connection:
        found = {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in set(tables.METADATA.tables.values()) - own
        }
    database.close()
    return found


async def run(world: ClusterWorld, *words: str) -> str:
    """Run ``rentstream …`` as people do, and return what it prints."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streams.cli", *words),
        env=world.env,
        cwd=world.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(running.communicate(), 90)
    assert running.returncode == 0, output.decode()
    return output.decode()


async def test_the_rent_roll_is_what_the_receiver_has(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    unit = pick(world, "Available")
    await world.send_webhooks(world.portfolio.set_rent(unit, 1907))
    await world.until(lambda: listed_rent(world, unit) == 1907.0 and receiver_matches(world))
    await world.rest()
    await complete(world)
    units = await roll(world)
    listed = {one.unit_id: one for one in world.rentsync.state.values() if one.status_name != "Removed"}
    shown = {one["unitId"]: one for one in units if one["offered"] and one["unitId"] in listed}
    assert shown.keys() == listed.keys()
    for number, one in listed.items():
        assert (shown[number]["state"], shown[number]["isAvailable"], shown[number]["rent"]) == (
            one.status_name.lower(),
            one.is_available,
            one.base_rent,
        )
        (receiver,) = shown[number]["receivers"]
        assert (receiver["receiver"], receiver["upToDate"], receiver["error"]) == ("rentsync", True, None)
    (found,) = await roll(world, f"&q={shown[unit]['propertyName']}&property={shown[unit]['propertyId']}"
                                 f"&changedSince={shown[unit]['fetchedAt']}&state=available")  # fmt: skip
    assert found == shown[unit]
    first = await ask(world, "/api/rent-roll?limit=5")
    again = await ask(world, "/api/rent-roll?limit=5", more={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_what_did_not_get_there_is_shown_with_the_reason(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    unit = pick(world, "Available")
    number = world.portfolio.units[unit].property_id
    world.rentsync.answer_next(503, times=100_000)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1911))

    async def is_shown() -> bool:
        items = (await ask(world, f"/api/deliveries?failed=true&property={number}")).json()["items"]
        return any("503" in (one["error"] or "") for one in items)

    await world.eventually(is_shown, "the failed delivery", every=0.1)
    units = await roll(world, f"&property={number}")
    assert {one["unitId"]: one["receivers"][0]["upToDate"] for one in units}[unit] is False
    world.rentsync.recover()
    await world.until(lambda: listed_rent(world, unit) == 1911.0)
    await world.rest()
    await complete(world)
    assert (await ask(world, f"/api/deliveries?failed=true&property={number}")).json()["items"] == []
    attempts = (await ask(world, f"/api/deliveries/attempts?property={number}&limit=20")).json()["items"]
    assert attempts[0]["result"] == "acknowledged"
    assert "waiting" in [one["result"] for one in attempts]
    webhooks = (await ask(world, "/api/webhooks?limit=5")).json()["items"]
    assert webhooks[0]["at"] >= webhooks[-1]["at"]


async def test_what_was_given_up_is_listed_until_it_is_made_up_for(cluster_world: ClusterWorld) -> None:
    """In the API and by commands, with its words and its content; it closes itself."""
    world = cluster_world
    unit = pick(world, "Available")
    entity = f"property:{world.portfolio.units[unit].property_id}"
    world.rentsync.answer_next(400, times=100_000)
    await world.send_webhooks(world.portfolio.set_rent(unit, 1921))

    async def states() -> set[str]:
        letters = (await ask(world, f"/api/dead-letters?entity={entity}")).json()
        return {one["state"] for one in letters}

    async def is_open() -> bool:
        return "open" in await states()

    await world.eventually(is_open, "the dead letter", every=0.1)
    await world.rest()
    await complete(world)
    (letter, *_) = (await ask(world, f"/api/dead-letters?state=open&entity={entity}")).json()
    assert (letter["reason"], letter["origin"], letter["receiver"]) == ("rejected", "deliveries.batches", "rentsync")
    assert "400" in letter["message"]
    (group,) = (await ask(world, f"/api/dead-letters/groups?fingerprint={letter['fingerprint']}")).json()
    assert group["letters"] >= group["open"] >= 1

    listed = await run(world, "dead-letters", "list", "--entity", entity)
    assert letter["id"] in listed
    assert letter["message"] in listed
    shown = json.loads(await run(world, "dead-letters", "show", letter["id"], "--json"))
    assert {name: shown[name] for name in letter} == letter
    assert 1921.0 in [float(one["base_rent"]) for one in shown["content"]["units"]]

    world.rentsync.recover()
    await world.send_webhooks(world.portfolio.set_rent(unit, 1922))
    await world.until(lambda: listed_rent(world, unit) == 1922.0)

    async def is_closed() -> bool:
        return await states() == {"closed"}

    await world.eventually(is_closed, "the end of the dead letter", every=0.1)
    assert await run(world, "dead-letters", "list", "--entity", entity) == (
        "nothing that was given up is open (--all shows the rest)\n"
    )


async def test_a_view_that_is_dropped_under_load_is_the_same_afterwards(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    unit = pick(world, "Available")
    _, href = await accepted(world, "/api/properties", office("In the view"))
    await until_it_is(world, href, "synced")
    stop = asyncio.Event()

    async def load() -> int:
        rent = 1000
        while not stop.is_set():
            rent += 1
            await world.send_webhooks(world.portfolio.set_rent(unit, rent))
            await world.clock.sleep(0.1)
        return rent

    loading = asyncio.create_task(load())
    try:
        printed = await run(world, "view", "rebuild")
    finally:
        stop.set()
        rent = await loading
    assert "the view is complete" in printed
    await world.until(lambda: listed_rent(world, unit) == float(rent))
    await world.rest()
    await complete(world)
    before = await asyncio.to_thread(dump, world)
    await run(world, "view", "rebuild")
    await complete(world)
    after = await asyncio.to_thread(dump, world)
    assert {name: len(rows) for name, rows in after.items()} == {name: len(rows) for name, rows in before.items()}
    assert after == before
    assert all(before[name] for name in ("rent_roll", "known_units", "sync_operations", "webhooks", "sweeps"))


async def test_a_database_that_is_away_delays_the_view_and_nothing_else(cluster_world: ClusterWorld) -> None:
    world = cluster_world
    async with (
        _web_on_postgres(world) as (web, url),
        httpx.AsyncClient(base_url=f"http://{web.http}", headers=world.bearer("default"), timeout=30) as client,
    ):

        async def answers() -> bool:
            found = await client.get("/api/rent-roll")
            return found.status_code == 200 and len(found.json()["items"]) > 5

        await world.eventually(answers, "the rent roll", every=0.2)
        async with _locked_out(url):
            refused = await client.get("/api/rent-roll")
            assert refused.status_code == 503
            assert "canary" not in refused.text
            assert refused.headers["content-type"] == "application/problem+json"
            accepted_ = await client.post("/api/webhooks/buildium", content=b"{}")
            assert accepted_.status_code == 401  # it is judged, so the ingress works
            assert (await world.probe(web, "/readyz")).status_code == 200  # type: ignore[union-attr]
        await world.eventually(answers, "the rent roll after the outage", every=0.2)


@asynccontextmanager
async def _web_on_postgres(world: ClusterWorld) -> AsyncIterator[tuple[Process, str]]:
    with postgres() as url:
        web = Process("web-postgres", ["http"], {**world.env, "DATABASE_URL": url}, world.folder)
        try:
            await world.ready(web)
            yield web, url
        finally:
            web.kill()


@asynccontextmanager
async def _locked_out(url: str) -> AsyncIterator[None]:
    """End all connections of a PostgreSQL, and allow no new ones, until the context exits."""
    admin = sa.create_engine(parse_url(url).set(database="template1"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("ALTER DATABASE postgres WITH ALLOW_CONNECTIONS false"))
        connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'"))
        try:
            yield
        finally:
            connection.execute(sa.text("ALTER DATABASE postgres WITH ALLOW_CONNECTIONS true"))
    admin.dispose()
