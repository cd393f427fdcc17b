"""Reads of the view over HTTP: pages, filters, whose data it is, and what is wrong with a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from schemas import topics
from schemas.delivery import Batch, BatchMode, DeliveryOutcome, DeliveryPhase, DeliveryResult, OfferedProperty
from schemas.pms import FetchOrigin, FetchRequest
from streams.core.flows import Record
from streams.view.database import Database
from streams.view.queries import Queries
from streams.web.api.view_models import Attempts, DeadLetter, DeadLetterGroup, Deliveries, RentRoll, Webhooks
from tests.streams.view.parts import NOON, View, account, building, delivery, known, lease, record, unit
from tests.streams.view.test_queries import fetch, letter
from tests.streams.web.api.parts import Entry, Site, bearer, is_problem, new, site

UNITS = 23


def webhook(number: int, ignored: str | None = None) -> Record:
    given = FetchRequest(
        org="default",
        connection="buildium",
        origin=FetchOrigin.WEBHOOK,
        event="Lease.Created" if number % 2 else "Rental.Updated",
        entity=number,
        received_at=NOON + timedelta(seconds=number // 2),
        ignored=ignored,
    )
    return record(topics.WEBHOOKS.name, given, offset=number)


def batch(version: int) -> Record:
    given = Batch(
        org="default",
        connection="buildium",
        sink="rentsync",
        batch_id=f"b{version}",
        sync_id=f"sync-{version}",
        cut_at=NOON + timedelta(seconds=version),
        seen_at=NOON,
        version=version,
        mode=BatchMode.DELTA,
        property=OfferedProperty(id=1, name="House", address="", is_active=True),
        units=(),
    )
    return record(topics.BATCHES.name, given)


def answer(version: int, result: DeliveryResult) -> Record:
    given = DeliveryOutcome(
        org="default",
        connection="buildium",
        sink="rentsync",
        property_id=1,
        version=version,
        result=result,
        attempt=1,
        at=NOON + timedelta(seconds=version),
        status=200 if result is DeliveryResult.ACKNOWLEDGED else 503,
    )
    return record(topics.OUTCOMES.name, given)


@asynccontextmanager
async def filled() -> AsyncIterator[tuple[Site, View]]:
    database = Database(sa.make_url("sqlite+pysqlite:///:memory:"))
    database.migrate()
    view = View(database)
    view.write(building(), building(2, name="Two Towers"), account())
    view.write(
        *(unit(number, 1 + number % 2, leases=[lease(number, number)] * (number % 3 == 0)) for number in range(UNITS))
    )
    async with site(view=Queries(database)) as here:
        for name, system in (("buildium", "buildium"), ("rentsync", "rentsync")):
            state = replace(new("default", name, system), enabled=True, sync_state="synced")
            here.service.kept["default", name] = Entry(state)
        yield here, view


async def pages(here: Site, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await here.ask("GET", f"{path}{cursor}")).json()
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def test_pages_of_the_rent_roll_cover_every_unit_once_whatever_changes() -> None:
    async with filled() as (here, view):
        first = (await here.ask("GET", "/api/rent-roll?limit=7")).json()
        view.write(unit(3, gone=True), unit(500), unit(8, code="eight"))
        rest = await pages(here, f"/api/rent-roll?limit=7&cursor={first['nextCursor']}")
        assert [one["unitId"] for one in (*first["items"], *rest)] == [*range(UNITS), 500]
        assert rest[1]["code"] == "eight"


async def test_the_rent_roll_has_the_form_of_its_document() -> None:
    async with filled() as (here, view):
        view.write(delivery(), known(2, view.digest(2), 1), known(4, b"old-old-", 1))
        content = (await here.ask("GET", "/api/rent-roll?limit=5")).json()
        shown = RentRoll.model_validate(content)
        assert shown.model_dump(mode="json", by_alias=True, exclude={"as_of"}) == {
            name: value for name, value in content.items() if name != "asOf"
        }
        assert (content["syncState"], content["connections"][0]["connection"]) == ("synced", "buildium")
        receivers = {one["unitId"]: one["receivers"] for one in content["items"]}
        assert [receivers[number][0]["upToDate"] for number in (0, 2, 4)] == [False, True, False]
        assert receivers[2][0]["acknowledgedAt"] == "2026-03-01T12:00:00Z"
        assert receivers[0][0]["acknowledgedAt"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("property=2", [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21]),
        ("state=rented", [0, 3, 6, 9, 12, 15, 18, 21]),
        ("state=rented&state=available&property=1&limit=500", [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]),
        ("state=removed", []),
        ("q=two%20TOWERS", [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21]),
        ("q=22", [22]),
        ("q=%25", []),
        ("q=_", []),
        ("connection=another", []),
        (f"changedSince={quote(NOON.isoformat())}&q=22", [22]),
        (f"changedSince={quote((NOON + timedelta(seconds=1)).isoformat())}", []),
    ],
)
async def test_the_rent_roll_can_be_filtered(query: str, expected: list[int]) -> None:
    async with filled() as (here, _):
        items = (await here.ask("GET", f"/api/rent-roll?{query}")).json()["items"]
        assert [one["unitId"] for one in items] == expected


async def test_an_empty_list_explains_itself() -> None:
    async with site() as here:
        assert (await here.ask("GET", "/api/rent-roll")).json()["syncState"] == "none"
        here.service.kept["default", "buildium"] = Entry(
            replace(new("default", "buildium", "buildium"), sync_state="first_sync", sync_detail="stage 2 of 4")
        )
        content = (await here.ask("GET", "/api/rent-roll")).json()
        assert (content["items"], content["asOf"], content["syncState"]) == ([], None, "first_sync")
        assert content["connections"][0]["syncDetail"] == "stage 2 of 4"


async def test_an_etag_stands_for_what_is_shown() -> None:
    async with filled() as (here, view):
        first = await here.ask("GET", "/api/rent-roll")
        tag = first.headers["etag"]
        same = await here.ask("GET", "/api/rent-roll", headers={"if-none-match": f'"x", {tag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        view.writer.caught_up(NOON + timedelta(hours=1))
        assert (await here.ask("GET", "/api/rent-roll", headers={"if-none-match": tag})).status_code == 304
        view.write(unit(3, code="three"))
        changed = await here.ask("GET", "/api/rent-roll", headers={"if-none-match": tag})
        assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)
        assert changed.json()["asOf"] == "2026-03-01T13:00:00Z"


async def test_no_org_sees_rows_of_another_one() -> None:
    async with filled() as (here, view):
        view.write(delivery(), webhook(1), batch(1), letter(1, fetch()))
        for path in ("/api/rent-roll", "/api/deliveries", "/api/deliveries/attempts", "/api/webhooks"):
            assert (await here.ask("GET", path)).json()["items"]
            other = await here.client.get(path, headers=bearer(org="other"))
            assert (other.status_code, other.json()["items"]) == (200, [])
        for path in ("/api/dead-letters", "/api/dead-letters/groups"):
            assert (await here.ask("GET", path)).json()
            other = await here.client.get(path, headers=bearer(org="other"))
            assert (other.status_code, other.json()) == (200, [])


async def test_deliveries_show_whether_it_got_there_and_why_not() -> None:
    async with filled() as (here, view):
        view.write(delivery(1), delivery(2, phase=DeliveryPhase.OWED, last_error="RentSync answered 503", seen_at=NOON))
        content = (await here.ask("GET", "/api/deliveries")).json()
        assert Deliveries.model_validate(content).model_dump(mode="json", by_alias=True) == content
        assert [one["propertyId"] for one in await pages(here, "/api/deliveries?limit=1")] == [1, 2]
        (failed,) = (await here.ask("GET", "/api/deliveries?failed=true")).json()["items"]
        assert (failed["phase"], failed["error"], failed["owedSince"]) == (
            "owed",
            "RentSync answered 503",
            "2026-03-01T12:00:00Z",
        )
        view.write(*(batch(version) for version in range(1, 8)))
        view.write(answer(1, DeliveryResult.WAITING), answer(2, DeliveryResult.ACKNOWLEDGED))
        attempts = (await here.ask("GET", "/api/deliveries/attempts")).json()
        assert Attempts.model_validate(attempts).model_dump(mode="json", by_alias=True) == attempts
        paged = await pages(here, "/api/deliveries/attempts?limit=2")
        assert [one["version"] for one in paged] == [7, 6, 5, 4, 3, 2, 1]
        (waiting,) = (await here.ask("GET", "/api/deliveries/attempts?failed=true&property=1")).json()["items"]
        assert (waiting["version"], waiting["httpStatus"], waiting["syncId"]) == (1, 503, "sync-1")


async def test_webhooks_come_newest_first_also_those_of_one_moment() -> None:
    async with filled() as (here, view):
        view.write(*(webhook(number, "not about a rent roll" if number == 4 else None) for number in range(9)))
        content = (await here.ask("GET", "/api/webhooks")).json()
        assert Webhooks.model_validate(content).model_dump(mode="json", by_alias=True) == content
        assert [one["entity"] for one in await pages(here, "/api/webhooks?limit=2")] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert [one["entity"] for one in await pages(here, "/api/webhooks?limit=2&event=Lease.Created")] == [7, 5, 3, 1]
        (one,) = (await here.ask("GET", "/api/webhooks?entity=4")).json()["items"]
        assert one["ignored"] == "not about a rent roll"


async def test_dead_letters_are_a_plain_list_whose_next_page_is_linked() -> None:
    async with filled() as (here, view):
        view.write(*(letter(number, fetch(number)) for number in range(5)), letter(9, fetch(), org=b"acme"))
        view.writer.caught_up(NOON)
        path, seen = "/api/dead-letters?limit=2&reason=rejected", []
        while path:
            page = await here.ask("GET", path)
            assert page.headers["x-as-of"] == "2026-03-01T12:00:00Z"
            seen += page.json()
            link = page.headers.get("link", "")
            path = link.removeprefix("<").removesuffix('>; rel="next"')
        assert [one["id"] for one in seen] == ["2-4", "2-3", "2-2", "2-1", "2-0"]
        assert [DeadLetter.model_validate(one).model_dump(mode="json", by_alias=True) for one in seen] == seen
        groups = (await here.ask("GET", "/api/dead-letters/groups")).json()
        assert [DeadLetterGroup.model_validate(one).model_dump(mode="json", by_alias=True) for one in groups] == groups
        assert (groups[0]["letters"], groups[0]["open"], groups[0]["fingerprint"]) == (5, 5, seen[0]["fingerprint"])
        (one,) = (await here.ask("GET", "/api/dead-letters?id=2-3&state=open")).json()
        assert one["id"] == "2-3"


@pytest.mark.parametrize(
    "path",
    [
        "/api/rent-roll?limit=0",
        "/api/rent-roll?limit=501",
        "/api/rent-roll?cursor=x",
        "/api/rent-roll?cursor=a.b",
        "/api/rent-roll?cursor=a.99999999999999999999",
        "/api/rent-roll?state=empty",
        "/api/rent-roll?property=one",
        "/api/rent-roll?property=9223372036854775808",
        "/api/rent-roll?changedSince=2026-03-01T12:00:00",
        "/api/rent-roll?changedSince=yesterday",
        "/api/rent-roll?connection=A%20B",
        "/api/deliveries?cursor=a.1",
        "/api/deliveries/attempts?cursor=1.a.1.1.x",
        "/api/webhooks?cursor=x.1.1",
        "/api/webhooks?entity=-1",
        "/api/dead-letters?id=seven",
        "/api/dead-letters?since=yesterday",
        "/api/dead-letters?fingerprint=XYZ",
        "/api/dead-letters?state=lost",
        "/api/dead-letters?cursor=1.1",
        "/api/dead-letters/groups?limit=0",
    ],
)
async def test_a_wrong_parameter_is_named(path: str) -> None:
    async with filled() as (here, _):
        refused = await here.ask("GET", path)
        assert is_problem(refused, 422)
        assert path.partition("?")[2].partition("=")[0] in refused.json()["detail"]


async def test_a_token_without_the_scope_reads_nothing() -> None:
    async with filled() as (here, _):
        for path, scope in (
            ("/api/rent-roll", "roll:read"),
            ("/api/deliveries", "sync:read"),
            ("/api/webhooks", "sync:read"),
            ("/api/dead-letters", "replay:read"),
            ("/api/dead-letters/groups", "replay:read"),
        ):
            assert is_problem(await here.client.get(path), 401)
            assert is_problem(await here.client.get(path, headers=bearer("integrations:read")), 403)
            assert (await here.client.get(path, headers=bearer(scope))).status_code == 200


async def test_a_database_that_is_down_is_503_without_its_password() -> None:
    database = Database(sa.make_url("postgresql+psycopg://ann:canary@127.0.0.1:1/rent"))
    async with site(view=Queries(database)) as here:
        for path in (
            *("/api/rent-roll", "/api/deliveries", "/api/deliveries/attempts", "/api/webhooks"),
            *("/api/dead-letters", "/api/dead-letters/groups"),
        ):
            refused: httpx.Response = await here.ask("GET", path)
            assert is_problem(refused, 503)
            assert refused.headers["retry-after"] == "5"
            assert "canary" not in refused.text
        assert (await here.ask("GET", "/api/buildium/sync")).status_code == 200
    database.close()
