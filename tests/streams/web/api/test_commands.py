"""Tests of the routes of commands and syncs, over HTTP."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.commands import FieldProblem, OwnerBody, PropertyBody, SyncEntity, SyncStatus
from tests.streams.web.api.parts import bearer, is_problem, pointers, site

SEED = {
    "name": "Test Property",
    "addressLine1": "123 Test St",
    "city": "Test City",
    "state": "CA",
    "postalCode": "90210",
    "country": "US",
    "rentalSubType": "Office",
    "status": "Active",
}
OWNER = {
    "firstName": "Ada",
    "lastName": "Lee",
    "addressLine1": "1 Main St",
    "postalCode": "90210",
    "country": "US",
    "propertyIds": ["id-1", "23"],
}
PROPERTY = SyncEntity.PROPERTY


async def test_a_property_is_accepted() -> None:
    async with site() as here:
        answer = await here.ask("POST", "/api/properties", SEED)
        assert answer.status_code == 202
        href = "/api/buildium/sync?entityType=property&entityId=id-1"
        assert answer.json() == {
            "id": "id-1",
            "entityType": "property",
            "sync": {"status": "pending", "operationId": "op-1", "href": href},
        }
        assert answer.headers["location"] == href
        (body,) = here.syncs.bodies
        assert isinstance(body, PropertyBody)
        assert (body.name, body.sub_type, body.is_active, body.address.country) == (
            "Test Property",
            "Office",
            True,
            "US",
        )
        assert here.syncs.callers == [("default", "ann", None)]
        shown = (await here.ask("GET", href)).json()
        assert (shown["status"], shown["entityId"], shown["buildiumId"]) == ("pending", "id-1", None)


async def test_every_field_of_a_property_is_taken() -> None:
    async with site() as here:
        more = {
            "status": "Inactive",
            "structureDescription": "brick",
            "yearBuilt": 1990,
            "reserve": 500.5,
            "operatingBankAccountId": 7,
            "propertyManagerId": 8,
            "ownerIds": ["501"],
            "units": [{"number": "1", "size": 700, "marketRent": 1500.25, "bedrooms": 0, "bathrooms": 1.5}],
        }
        assert (await here.ask("POST", "/api/properties?connection=main", SEED | more)).status_code == 202
        (body,) = here.syncs.bodies
        assert isinstance(body, PropertyBody)
        assert (body.is_active, body.structure, body.year_built, body.reserve) == (
            False,
            "brick",
            1990,
            Decimal("500.5"),
        )
        assert (body.bank_account, body.manager, body.owners) == (7, 8, ("501",))
        (unit,) = body.units
        assert (unit.size, unit.market_rent, unit.bedrooms, unit.bathrooms) == (
            700, Decimal("1500.25"), Decimal(0), Decimal("1.5"),
        )  # fmt: skip
        assert here.syncs.callers[0][2] == "main"


async def test_an_owner_is_accepted() -> None:
    async with site() as here:
        phones = {"phoneNumbers": {"mobile": "(403) 555-0123"}, "email": "ada@owner.example"}
        answer = await here.ask("POST", "/api/owners", OWNER | phones)
        assert (answer.status_code, answer.json()["entityType"]) == (202, "owner")
        (body,) = here.syncs.bodies
        assert isinstance(body, OwnerBody)
        assert (body.first_name, body.properties, body.phones[0].kind) == ("Ada", ("id-1", "23"), "mobile")


async def test_a_change_keeps_the_id() -> None:
    async with site() as here:
        await here.ask("POST", "/api/properties", SEED)
        answer = await here.ask("PUT", "/api/properties/id-1", SEED | {"name": "Other"})
        assert (answer.status_code, answer.json()["id"]) == (202, "id-1")
        assert is_problem(await here.ask("PUT", "/api/properties/unknown", SEED), 404)
        assert is_problem(await here.ask("PUT", "/api/properties/id-1", SEED, headers=bearer(org="maple")), 404)
        await here.ask("POST", "/api/owners", OWNER)
        assert (await here.ask("PUT", "/api/owners/id-3", OWNER)).status_code == 202


async def test_an_idempotency_key_is_one_request() -> None:
    async with site() as here:
        key = {"idempotency-key": "k-1"}
        first = await here.ask("POST", "/api/properties", SEED, headers=key)
        again = await here.ask("POST", "/api/properties", SEED, headers=key)
        assert (again.status_code, again.json()) == (202, first.json())
        other = await here.ask("POST", "/api/properties", SEED | {"name": "B"}, headers=key)
        assert is_problem(other, 422)
        assert "Idempotency-Key" in other.json()["detail"]
        assert len(here.syncs.bodies) == 1
        assert is_problem(await here.ask("POST", "/api/properties", SEED, headers={"idempotency-key": "a b"}), 422)


@pytest.mark.parametrize("field", sorted(set(SEED) - {"status", "city", "state"}))
async def test_a_property_without_a_required_field_is_refused(field: str) -> None:
    async with site() as here:
        body = {name: value for name, value in SEED.items() if name != field}
        answer = await here.ask("POST", "/api/properties", body)
        assert is_problem(answer, 422)
        assert pointers(answer) == {f"/{field}": "is required"}
        assert here.syncs.bodies == []


@pytest.mark.parametrize(
    ("wrong", "pointer", "words"),
    [
        ({"name": ""}, "/name", "must not be empty"),
        ({"name": "x" * 128}, "/name", "must have at most 127 characters"),
        ({"name": 5}, "/name", "must be a text"),
        ({"rentalSubType": "Castle"}, "/rentalSubType", "must be 'CondoTownhome'"),
        ({"status": "Gone"}, "/status", "must be 'Active' or 'Inactive'"),
        ({"yearBuilt": 12}, "/yearBuilt", "must be at least 1000"),
        ({"yearBuilt": 1990.5}, "/yearBuilt", "must be a whole number"),
        ({"reserve": "much"}, "/reserve", "must be a number"),
        ({"reserve": 1.234}, "/reserve", "must have at most 2 decimal places"),
        ({"ownerIds": ["a/b"]}, "/ownerIds/0", "must match"),
        ({"units": [{"number": "1"}, {"number": "1"}]}, "", "the numbers of the units must differ"),
        ({"units": [{"number": "1", "bathrooms": 1.2}]}, "/units/0/bathrooms", "must be a multiple of 0.5"),
        ({"units": [{}]}, "/units/0/number", "is required"),
        ({"nickname": "x"}, "/nickname", "is unknown; check its spelling"),
    ],
)
async def test_a_wrong_field_of_a_property_is_named(wrong: dict[str, Any], pointer: str, words: str) -> None:
    async with site() as here:
        answer = await here.ask("POST", "/api/properties", SEED | wrong)
        assert is_problem(answer, 422)
        assert list(pointers(answer)) == [pointer]
        assert pointers(answer)[pointer].startswith(words)


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"companyName": "Lee Ltd."}, ""),
        ({"lastName": None}, ""),
        ({"propertyIds": []}, "/propertyIds"),
        ({"email": "nobody"}, "/email"),
        ({"phoneNumbers": {"mobile": "1"}}, "/phoneNumbers/mobile"),
        ({"phoneNumbers": {"pager": "4035550123"}}, "/phoneNumbers/pager"),
    ],
)
async def test_a_wrong_field_of_an_owner_is_named(wrong: dict[str, Any], pointer: str) -> None:
    async with site() as here:
        answer = await here.ask("POST", "/api/owners", OWNER | wrong)
        assert is_problem(answer, 422)
        assert list(pointers(answer)) == [pointer]


async def test_bodies_are_limited_and_json() -> None:
    async with site() as here:
        large = SEED | {"structureDescription": "x" * 1_100_000}
        assert is_problem(await here.ask("POST", "/api/properties", large), 413)
        answer = await here.client.post(
            "/api/properties", content=b"{", headers={**bearer(), "content-type": "application/json"}
        )
        assert is_problem(answer, 400)
        answer = await here.client.post(
            "/api/properties", content=b"{}", headers={**bearer(), "content-type": "text/plain"}
        )
        assert is_problem(answer, 415)


async def test_without_kafka_nothing_is_accepted() -> None:
    async with site() as here:
        here.syncs.away = True
        answer = await here.ask("POST", "/api/properties", SEED)
        assert is_problem(answer, 503)
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/api/properties", "commands:write"),
        ("PUT", "/api/properties/id-1", "commands:write"),
        ("POST", "/api/owners", "commands:write"),
        ("PUT", "/api/owners/id-1", "commands:write"),
        ("GET", "/api/buildium/sync", "sync:read"),
        ("POST", "/api/buildium/sync", "sync:write"),
    ],
)
async def test_each_route_needs_its_scope(method: str, path: str, scope: str) -> None:
    async with site() as here:
        refused = await here.ask(method, path, {}, headers=bearer("integrations:write"))
        assert is_problem(refused, 403)
        assert scope in refused.json()["detail"]
        allowed = await here.ask(method, path, {}, headers=bearer(scope))
        assert allowed.status_code in {200, 422}
        assert is_problem(await here.client.request(method, path, json={}), 401)


async def test_a_failure_is_shown_with_its_fields() -> None:
    async with site() as here:
        problem = FieldProblem(pointer="/name", detail="required")
        at = datetime(2026, 3, 1, tzinfo=UTC)
        here.syncs.put(
            "default", PROPERTY, "p", SyncStatus.FAILED, code="rejected", detail="422", fields=(problem,), pms_id=9,
            next_attempt_at=at, attempts=2, name="Annex",
        )  # fmt: skip
        shown = (await here.ask("GET", "/api/buildium/sync?entityType=property&entityId=p")).json()
        assert shown["error"] == {
            "code": "rejected",
            "message": "422",
            "fields": [{"pointer": "/name", "detail": "required"}],
        }
        assert (shown["buildiumId"], shown["attempts"], shown["nextAttemptAt"]) == (9, 2, "2026-03-01T00:00:00Z")
        assert (shown["name"], shown["detail"], len(shown["operations"])) == ("Annex", None, 1)


async def test_without_its_type_an_entity_is_found_by_its_id() -> None:
    async with site() as here:
        here.syncs.put("default", SyncEntity.OWNER, "w", SyncStatus.SYNCED)
        assert (await here.ask("GET", "/api/buildium/sync?entityId=w")).json()["entityType"] == "owner"
        assert is_problem(await here.ask("GET", "/api/buildium/sync?entityId=x"), 404)


async def test_what_failed_is_listed_page_by_page() -> None:
    async with site() as here:
        for number in range(5):
            here.syncs.put("default", PROPERTY, f"p{number}", SyncStatus.FAILED)
            here.clock.move(minutes=1)
        here.syncs.put("default", SyncEntity.OWNER, "w", SyncStatus.CONFLICT)
        here.syncs.put("maple", PROPERTY, "foreign", SyncStatus.FAILED)
        first = (await here.ask("GET", "/api/buildium/sync?limit=4")).json()
        assert [one["entityId"] for one in first["items"]] == ["w", "p4", "p3", "p2"]
        here.syncs.put("default", PROPERTY, "new", SyncStatus.FAILED)
        here.syncs.put("default", PROPERTY, "p1", SyncStatus.SYNCED)
        rest = (await here.ask("GET", f"/api/buildium/sync?limit=4&cursor={first['nextCursor']}")).json()
        assert ([one["entityId"] for one in rest["items"]], rest["nextCursor"]) == (["p0"], None)
        owners = (await here.ask("GET", "/api/buildium/sync?entityType=owner")).json()
        assert [one["entityId"] for one in owners["items"]] == ["w"]


@pytest.mark.parametrize("query", ["cursor=nonsense", "cursor=1", "cursor=%00", "limit=0", "entityType=lease"])
async def test_a_wrong_query_is_refused(query: str) -> None:
    async with site() as here:
        assert is_problem(await here.ask("GET", f"/api/buildium/sync?{query}"), 422)


async def test_what_failed_is_tried_again() -> None:
    async with site() as here:
        here.syncs.put("default", PROPERTY, "p", SyncStatus.FAILED, operation="op-7")
        answer = await here.ask("POST", "/api/buildium/sync", {"entityType": "property"})
        assert (answer.status_code, answer.json()["retried"]) == (202, 1)
        assert answer.json()["operations"][0]["id"] == "op-7"
        none = await here.ask("POST", "/api/buildium/sync", {"entityType": "owner"})
        assert (none.status_code, none.json()) == (202, {"retried": 0, "operations": []})
        unknown = await here.ask("POST", "/api/buildium/sync", {"entityType": "property", "entityId": "x"})
        assert is_problem(unknown, 404)
