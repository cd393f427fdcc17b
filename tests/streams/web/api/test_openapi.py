"""Tests of the OpenAPI document: valid, complete, and equal to the behaviour of the routes."""

import asyncio
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from streams.web.api.app import build_api
from streams.web.api.models import Integration, IntegrationInput, Received, WebhookEvent
from streams.web.api.openapi import webhook_routes
from streams.web.api.tokens import SharedSecret, TokenVerifier
from streams.web.ingress import build_ingress
from tests.streams.replays.parts import memory_replays
from tests.streams.web.api.parts import (
    BODY,
    SIGNING,
    MemoryIntegrations,
    MemorySyncs,
    MovableClock,
    bearer,
    memory_view,
    site,
)
from tests.streams.web.parts import MemoryPublisher, Readers


async def read() -> dict[str, Any]:
    async with site() as here:
        content: dict[str, Any] = (await here.client.get("/openapi.json")).json()
    return content


def operations(content: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [one for value in node.values() for one in references(value)]
    return [one for value in node for one in references(value)] if isinstance(node, list) else []


async def test_the_document_is_openapi_3_1() -> None:
    """It loads as such, every reference resolves, and every operation has an id of its own."""
    content = await read()
    loaded = OpenAPI.model_validate(content)
    ids = [operation["operationId"] for _, _, operation in operations(content)]

    assert loaded.openapi == "3.1.0"
    assert content["info"]["version"] == "1.2.3"
    assert len(set(ids)) == len(ids) == 31
    for reference in references(content):
        node = content
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


async def test_only_what_is_needed_is_required_of_a_webhook() -> None:
    """The headers of one system are not required of all, and the door answers no 422."""
    for path in ("/api/webhooks/{system}", "/api/webhooks/{system}/{connection}"):
        operation = (await read())["paths"][path]["post"]
        required = {one["name"] for one in operation["parameters"] if one["required"]}

        assert required == set(re.findall(r"{(\w+)}", path))
        assert set(operation["responses"]) == {"202", "400", "401", "404", "408", "413", "500", "503"}


async def test_the_document_is_read_without_a_token() -> None:
    """Its bytes are always the same."""
    async with site() as here:
        first, second = await here.client.get("/openapi.json"), await here.client.get("/openapi.json")

    assert first.headers["content-type"] == "application/json"
    assert first.content == second.content


def example_of(content: Any, operation: Any) -> Any:
    """Return the first example of the body of an operation; null if it takes none."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    return next(iter(content["components"]["schemas"].get(name, {}).get("examples", [])), None)


async def test_every_path_of_the_document_exists() -> None:
    """Webhooks and all: each is answered with a status that it documents."""
    async with site() as here:
        content = (await here.client.get("/openapi.json")).json()
        await here.put()
        asked = {}
        for method, path, operation in operations(content):
            real = path.format(system="buildium", connection="main", name="buildium", id="id-1")
            body = {"EventName": "Rental.Updated"} if "webhooks" in path else example_of(content, operation)
            if path.startswith("/api/integrations") and method == "PUT":
                body = BODY
            answer = await here.ask(method, real, body, headers={"signature": "yes"})
            asked[method, path] = answer.status_code
            assert str(answer.status_code) in operation["responses"], (method, path)

    assert set(asked.values()) <= {200, 201, 202, 204, 404}
    assert {path for _, path in asked} == {
        "/",
        "/healthz",
        "/openapi.json",
        "/api/integrations",
        "/api/integrations/{name}",
        "/api/integrations/{name}/enable",
        "/api/integrations/{name}/disable",
        "/api/integrations/{name}/check",
        "/api/integrations/{name}/rotate-webhook-secret",
        "/api/properties",
        "/api/properties/{id}",
        "/api/owners",
        "/api/owners/{id}",
        "/api/buildium/sync",
        "/api/rent-roll",
        "/api/deliveries",
        "/api/deliveries/attempts",
        "/api/dead-letters",
        "/api/dead-letters/groups",
        "/api/replays",
        "/api/replays/{id}",
        "/api/replays/{id}/approve",
        "/api/replays/{id}/pause",
        "/api/replays/{id}/cancel",
        "/api/webhooks",
        "/api/webhooks/{system}",
        "/api/webhooks/{system}/{connection}",
    }


async def test_every_error_is_a_problem_with_an_example() -> None:
    """And every answer has its request's id."""
    for method, path, operation in operations(await read()):
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"], (method, path, status)
            assert response["description"], (method, path, status)
            if int(status) >= 400:
                (media_type,) = response["content"]
                assert media_type == "application/problem+json"
                example = response["content"][media_type]["example"]
                assert example["status"] == int(status)
                assert example["detail"]
                assert response["content"][media_type]["schema"] == {"$ref": "#/components/schemas/Problem"}


async def test_every_route_of_the_api_names_its_scope() -> None:
    """As a bearer token; the rest is open."""
    content = await read()
    assert content["components"]["securitySchemes"]["bearer"]["bearerFormat"] == "JWT"
    for method, path, operation in operations(content):
        if path.startswith("/api/integrations"):
            scope = "integrations:" + ("read" if method == "GET" or path.endswith("/check") else "write")
        elif path.startswith("/api/buildium"):
            scope = "sync:" + ("read" if method == "GET" else "write")
        elif path.startswith(("/api/properties", "/api/owners")):
            scope = "commands:write"
        elif path == "/api/rent-roll":
            scope = "roll:read"
        elif path.startswith("/api/deliveries") or path == "/api/webhooks":
            scope = "sync:read"
        elif path.startswith("/api/dead-letters"):
            scope = "replay:read"
        elif path.startswith("/api/replays"):
            scope = "replay:" + ("read" if method == "GET" else "write")
        else:
            assert "security" not in operation, (method, path)
            continue
        assert operation["security"] == [{"bearer": [scope]}], (method, path)


async def test_the_schemas_are_those_of_the_models_that_validate() -> None:
    content = await read()
    schemas = content["components"]["schemas"]

    assert set(schemas["IntegrationInput"]["properties"]) == {"system", "mode", "settings", "secrets", "properties"}
    assert schemas["IntegrationInput"]["additionalProperties"] is False
    assert set(schemas["Integration"]["properties"]) == set(Integration.model_json_schema()["properties"])
    assert set(schemas["Received"]["required"]) == {"received", "event"}
    assert "errors" not in schemas["Problem"]["required"]
    assert schemas["WebhookEvent"]["required"] == ["EventName"]
    assert not {name for name in schemas if "Validation" in name}


async def test_the_examples_of_the_document_are_valid() -> None:
    """Every example of a body is a body."""
    content = await read()
    async with site() as here:
        for example in content["components"]["schemas"]["IntegrationInput"]["examples"]:
            assert (await here.ask("PUT", "/api/integrations/example", example)).status_code == 201
        for example in content["components"]["schemas"]["WebhookSecretRotation"]["examples"]:
            path = "/api/integrations/example/rotate-webhook-secret"
            assert (await here.ask("POST", path, example)).status_code in {200, 404}


def test_the_webhook_models_are_those_of_the_ingress() -> None:
    event = WebhookEvent.model_validate({"EventName": "Rental.Updated", "PropertyId": 5, "AccountId": 7})

    assert event.model_dump(by_alias=True, exclude_none=True) == {
        "EventName": "Rental.Updated",
        "AccountId": 7,
        "PropertyId": 5,
    }
    assert Received(event="Rental.Updated").model_dump() == {"received": True, "event": "Rental.Updated"}


async def test_the_documented_webhook_answers_like_the_ingress() -> None:
    """The routes of the document answer like `streams.web.ingress`."""
    for route in webhook_routes():
        event = WebhookEvent.model_validate({"EventName": "Rental.Updated"})
        extra = {"connection": "main"} if "connection" in route.path else {}
        answer = await route.endpoint(system="buildium", event=event, timestamp=None, signature=None, **extra)
        async with site() as here:
            path = route.path.format(system="buildium", connection="main")
            real = await here.ask("POST", path, event.model_dump(by_alias=True), headers={"signature": "yes"})
        assert real.json() == answer.model_dump()


# ----------------------------------------------------------------------------------------------------- whatever is sent


@cache
def app() -> Any:
    clock = MovableClock()
    service = MemoryIntegrations(clock)
    view, verifier = memory_view(), TokenVerifier(SharedSecret(SIGNING), clock)
    api = build_api(service, MemorySyncs(clock), view, memory_replays(view, clock), verifier, version="1")
    return build_ingress(Readers(), MemoryPublisher(), clock, others=api)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = ["system", "mode", "settings", "secrets", "properties", "secret", "remove", "default", "on", "off", "(text)"]
SHAPED = st.recursive(
    SCALARS | st.sampled_from(["buildium", "sandbox", "2026-03-01T12:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=20,
)
PATHS = ("", "/enable", "/disable", "/check", "/rotate-webhook-secret")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    body=st.one_of(JSON, SHAPED, SHAPED.map(lambda one: {"system": "buildium", "settings": {"baseUrl": one}})),
    path=st.sampled_from(PATHS),
)
def test_no_json_body_causes_an_exception(body: Any, path: str) -> None:
    """For any JSON (NaN and lone surrogates included) there is no 500, and pointers of errors exist in the body."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            method = "PUT" if not path else "POST"
            headers = {**bearer(), "content-type": "application/json"}
            url = f"/api/integrations/any{path}"
            return await client.request(method, url, content=json.dumps(body).encode(), headers=headers)

    answer = asyncio.run(ask())

    assert answer.status_code in {200, 201, 400, 404, 422}
    if answer.status_code == 422:
        known = from_json(json.dumps(body).encode())
        for error in answer.json()["errors"]:
            assert leads_into(error["pointer"], known) or error["detail"] == "is required"


def leads_into(pointer: str, body: Any) -> bool:
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(body, list):
            if not re.fullmatch(r"\d+", name) or int(name) >= len(body):
                return False
            body = body[int(name)]
        elif isinstance(body, dict) and name in body:
            body = body[name]
        else:
            return False
    return True


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200), media_type=st.sampled_from(["application/json", "text/plain", ""]))
def test_no_bytes_cause_an_exception(body: bytes, media_type: str) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {**bearer(), "content-type": media_type}
            return await client.put("/api/integrations/any", content=body, headers=headers)

    assert asyncio.run(ask()).status_code in {400, 415, 422}


@pytest.mark.parametrize("secret", ["(text)", "(list)", "(null)", "[key]"])
async def test_a_member_called_like_a_mark_of_pydantic_has_its_pointer(secret: str) -> None:
    async with site() as here:
        answer = await here.put(secrets={secret: 5, "clientId": {secret: 5}})

    assert {error["pointer"] for error in answer.json()["errors"]} >= {f"/secrets/{secret}"}


def test_a_body_of_a_request_does_not_take_python_names() -> None:
    """`extra="forbid"` and aliases only: the API has one spelling."""
    assert IntegrationInput.model_config["validate_by_name"] is False
