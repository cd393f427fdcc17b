"""The routes of integrations over a real server: what they answer, to whom, and what they never show."""

import asyncio
import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.streams.web.api.parts import BODY, MADE, Site, bearer, is_problem, pointers, site
from tests.streams.web.parts import connected, read_reply

ONE = "/api/integrations/buildium"

NAMED = (
    ("GET", ONE, None),
    ("PUT", ONE, BODY),
    ("DELETE", ONE, None),
    ("POST", f"{ONE}/enable", None),
    ("POST", f"{ONE}/disable", None),
    ("POST", f"{ONE}/check", None),
    ("POST", f"{ONE}/rotate-webhook-secret", {"secret": "another-secret"}),
)
ROUTES = (("GET", "/api/integrations", None), *NAMED)
READS = {("GET", "/api/integrations"), ("GET", ONE), ("POST", f"{ONE}/check")}


# ----------------------------------------------------------------------------------------------------- what is answered


async def test_a_new_integration_is_disabled_and_shown_without_its_secrets() -> None:
    """PUT answers 201 with the whole integration; GET answers the same."""
    async with site() as here:
        created = await here.put(properties={"default": True, "off": [23]})
        read = await here.ask("GET", ONE)

    assert created.status_code == 201
    assert created.headers["location"] == ONE
    assert created.headers["etag"] == read.headers["etag"] == '"1"'
    assert created.headers["cache-control"] == "no-store"
    assert created.json() == read.json() == {
        "name": "buildium",
        "org": "default",
        "system": "buildium",
        "mode": "sandbox",
        "enabled": False,
        "origin": "stored",
        "settings": {"baseUrl": "https://apisandbox.buildium.com/v1"},
        "secrets": {
            "clientId": _secret(None),
            "clientSecret": _secret("1234"),
        },
        "webhookUrl": f"http://127.0.0.1:{here.port}/api/webhooks/buildium/t0ken",
        "dataAccess": {"properties": {"read": "ok", "create": "untested", "update": "untested"}},
        "syncState": "disabled",
        "syncDetail": None,
        "lastRan": None,
        "lastStatus": None,
        "hold": None,
        "properties": {"default": True, "on": [], "off": [23]},
        "version": 1,
    }  # fmt: skip
    assert here.service.changes == [("default", "buildium", "ann")]


def _secret(last4: str | None) -> dict[str, Any]:
    return {"set": True, "last4": last4, "since": "2026-03-01T12:00:00Z", "readable": True, "older": []}


async def test_a_change_keeps_what_is_not_named() -> None:
    """A secret that is not named stays, null removes it; switches that are not named stay."""
    async with site() as here:
        await here.put(properties={"default": False, "on": [1, 2]})
        changed = await here.put(secrets={"clientId": None}, settings={"timezone": "UTC"}, properties={"off": [3]})

    assert changed.status_code == 200
    assert set(changed.json()["secrets"]) == {"clientSecret"}
    assert changed.json()["settings"] == {"timezone": "UTC"}
    assert changed.json()["properties"] == {"default": False, "on": [1, 2], "off": [3]}
    assert changed.json()["version"] == 2


async def test_the_list_has_the_integrations_of_the_org() -> None:
    """By name."""
    async with site() as here:
        empty = await here.ask("GET", "/api/integrations")
        await here.put("second")
        await here.put("first")
        full = await here.ask("GET", "/api/integrations")

    assert empty.json() == []
    assert [one["name"] for one in full.json()] == ["first", "second"]


async def test_an_integration_is_enabled_disabled_and_deleted() -> None:
    """Each is answered with the state after it; 204 after a deletion."""
    async with site() as here:
        await here.put()
        enabled = await here.ask("POST", f"{ONE}/enable")
        disabled = await here.ask("POST", f"{ONE}/disable")
        deleted = await here.ask("DELETE", ONE)
        gone = await here.ask("GET", ONE)

    assert (enabled.json()["enabled"], enabled.headers["etag"]) == (True, '"2"')
    assert (disabled.json()["enabled"], disabled.headers["etag"]) == (False, '"3"')
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert is_problem(gone, 404)


async def test_a_check_is_answered_with_every_check() -> None:
    """200, whether it passed or not."""
    async with site() as here:
        await here.put(secrets={})
        failed = await here.ask("POST", f"{ONE}/check")

    assert failed.status_code == 200
    assert failed.json() == {
        "ok": False,
        "checks": [
            {
                "name": "credentials",
                "ok": False,
                "status": "failed",
                "required": True,
                "seconds": 1.25,
                "detail": "there are none",
                "fix": "enter clientId and clientSecret",
            },
            {
                "name": "page_order",
                "ok": False,
                "status": "skipped",
                "required": True,
                "seconds": 0.0,
                "detail": "not reached",
                "fix": None,
            },
        ],
        "dataAccess": {"properties": {"read": "ok", "create": "untested", "update": "untested"}},
    }


async def test_a_webhook_secret_is_added_beside_the_old_one_and_the_old_one_removed() -> None:
    """Both are shown while both are valid; `since` names the one that goes."""
    path = f"{ONE}/rotate-webhook-secret"
    async with site() as here:
        await here.put(secrets={"webhookSecret": "the-first-secret-aaaa"})
        here.clock.move(minutes=1)
        added = await here.ask("POST", path, {"secret": "the-second-secret-bbbb"})
        both = added.json()["secrets"]["webhookSecret"]
        removed = await here.ask("POST", path, {"remove": both["older"][0]["since"]})
        again = await here.ask("POST", path, {"remove": both["older"][0]["since"]})

    assert (both["last4"], [one["last4"] for one in both["older"]]) == ("bbbb", ["aaaa"])
    assert added.json()["newSecret"] is None
    assert added.headers["etag"] == '"2"'
    assert removed.json()["secrets"]["webhookSecret"]["older"] == []
    assert removed.json()["secrets"]["webhookSecret"]["last4"] == "bbbb"
    assert is_problem(again, 404)
    assert "webhook secret" in again.json()["detail"]


@pytest.mark.parametrize("body", [None, {}])
async def test_a_webhook_secret_is_made_and_shown_once(body: Any) -> None:
    """Where none is given; an empty body and an empty object are the same."""
    async with site() as here:
        await here.put()
        made = await here.ask("POST", f"{ONE}/rotate-webhook-secret", body)
        read = await here.ask("GET", ONE)

    assert made.json()["newSecret"] == MADE
    assert MADE not in read.text


async def test_the_webhook_url_is_the_address_that_callers_use() -> None:
    """The public one where it is known; else the host of the request, if that is one at all."""
    async with site(public_url="https://rent.example.com/") as here:
        public = await here.put()
    async with site() as here:
        named = await here.ask("PUT", ONE, BODY, headers={"host": "rent.example.net:8080"})
        odd = await here.ask("GET", ONE, headers={"host": "<script>"})

    assert public.json()["webhookUrl"] == "https://rent.example.com/api/webhooks/buildium/t0ken"
    assert named.json()["webhookUrl"] == "http://rent.example.net:8080/api/webhooks/buildium/t0ken"
    assert odd.json()["webhookUrl"] == "/api/webhooks/buildium/t0ken"


async def test_a_receiver_has_no_webhook_url() -> None:
    async with site() as here:
        receiver = await here.put("rentsync", system="rentsync", settings={}, secrets={})

    assert receiver.json()["webhookUrl"] is None
    assert receiver.json()["mode"] == "sandbox"


# ------------------------------------------------------------------------------------------------------ who may do what


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_every_route_needs_a_token(method: str, path: str, body: Any) -> None:
    """Without one, with one that is none, and with another scheme: 401, and nothing is done."""
    async with site() as here:
        without = await here.client.request(method, path, json=body)
        basic = await here.client.request(method, path, json=body, headers={"authorization": "Basic YTpi"})
        wrong = await here.client.request(method, path, json=body, headers={"authorization": "Bearer nonsense"})

    assert all(is_problem(answer, 401) for answer in (without, basic, wrong))
    assert without.headers["www-authenticate"] == basic.headers["www-authenticate"] == "Bearer"
    assert wrong.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert here.service.changes == []


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_every_route_needs_its_scope(method: str, path: str, body: Any) -> None:
    """The one scope is not enough for the other; 403 names what is missing."""
    read = (method, path) in READS
    needed, other = ("integrations:read", "integrations:write") if read else ("integrations:write", "integrations:read")
    async with site() as here:
        await here.put()
        before = list(here.service.changes)
        refused = await here.ask(method, path, body, headers=bearer(other, "sync:read"))
        unchanged = here.service.changes == before
        allowed = await here.ask(method, path, body, headers=bearer("sync:read", needed))

    assert is_problem(refused, 403)
    assert needed in refused.json()["detail"]
    assert refused.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    assert unchanged
    assert allowed.status_code < 300


@pytest.mark.parametrize(("method", "path", "body"), NAMED)
async def test_the_integration_of_another_org_is_as_if_it_were_not(method: str, path: str, body: Any) -> None:
    """No route shows or changes it, and the answer is that of a name that does not exist."""
    theirs = bearer(org="acme")
    async with site() as here:
        await here.put()
        before = here.service.kept["default", "buildium"]
        answer = await here.ask(method, path, body, headers=theirs)
        listed = await here.ask("GET", "/api/integrations", headers=theirs)
        after = here.service.kept["default", "buildium"]

    assert before == after
    if method == "PUT":
        assert answer.status_code == 201
        assert answer.json()["org"] == "acme"
        assert answer.json()["version"] == 1
    else:
        assert is_problem(answer, 404)
        assert listed.json() == []


async def test_the_token_is_checked_before_the_body() -> None:
    """For any body, a caller without a token is answered 401 and one without the scope 403."""
    bodies = (b"no json", b'{"system": 5}', b"")
    async with site() as here:
        strangers = [await here.client.put(ONE, content=body, headers=JSON) for body in bodies]
        readers = [
            await here.ask("PUT", ONE, content=body, headers={**JSON, **bearer("integrations:read")}) for body in bodies
        ]

    assert all(is_problem(answer, 401) for answer in strangers)
    assert all(is_problem(answer, 403) for answer in readers)


JSON = {"content-type": "application/json"}


# ------------------------------------------------------------------------------------------------------ what is refused


FIELDS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"mode": "staging"}, {"/mode": "must be 'sandbox' or 'production'"}),
    ({"mode": 3, "system": 5}, {"/mode": "must be 'sandbox' or 'production'", "/system": "must be a text"}),
    ({"system": ""}, {"/system": "must not be empty"}),
    ({"system": "x" * 65}, {"/system": "must have at most 64 characters"}),
    ({"system": "yardi"}, {"/system": "there is no such system; there are: buildium, rentsync"}),
    ({"modus": "sandbox"}, {"/modus": "is unknown; check its spelling"}),
    ({"a/b~c": 1}, {"/a~1b~0c": "is unknown; check its spelling"}),
    ({"webhook_url": 1}, {"/webhook_url": "is unknown; check its spelling"}),
    ({"settings": []}, {"/settings": "must be an object"}),
    ({"settings": {"baseURL": "x"}}, {"/settings/baseURL": "there is no such name"}),
    ({"secrets": "x"}, {"/secrets": "must be an object"}),
    (
        {"secrets": {"clientId": 5, "clientSecret": True, "webhookSecret": ["a", 5, ""], "apiKey": {}, "x": ""}},
        {
            "/secrets/clientId": "must be a text",
            "/secrets/clientSecret": "must be a text",
            "/secrets/webhookSecret/1": "must be a text",
            "/secrets/webhookSecret/2": "must not be empty",
            "/secrets/apiKey": "must be a text",
            "/secrets/x": "must not be empty",
        },
    ),
    ({"secrets": {"webhookSecret": []}}, {"/secrets/webhookSecret": "must not be empty"}),
    (
        {"properties": {"default": "yes", "on": [1, "2", 0, 2**63, True, 1.5], "off": 4, "of": []}},
        {
            "/properties/default": "must be true or false",
            "/properties/on/1": "must be a whole number",
            "/properties/on/2": "must be at least 1",
            "/properties/on/3": "must be at most 9223372036854775807",
            "/properties/on/4": "must be a whole number",
            "/properties/on/5": "must be a whole number",
            "/properties/off": "must be a list",
            "/properties/of": "is unknown; check its spelling",
        },
    ),
    ({"properties": []}, {"/properties": "must be an object"}),
]


@pytest.mark.parametrize(("members", "wrong"), FIELDS)
async def test_every_wrong_member_is_named_by_its_pointer(members: dict[str, Any], wrong: dict[str, str]) -> None:
    """All errors are reported at once."""
    async with site() as here:
        answer = await here.put(**members)

    assert is_problem(answer, 422)
    assert pointers(answer) == wrong
    assert here.service.kept == {}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"{}", {"/system": "is required"}),
        (b"", {"": "is required"}),
        (b"[]", {"": "must be an object"}),
        (b"null", {"": "must be an object"}),
        (b'"text"', {"": "must be an object"}),
    ],
)
async def test_a_body_that_is_no_integration_is_refused(body: bytes, wrong: dict[str, str]) -> None:
    """The empty pointer is the body as a whole."""
    async with site() as here:
        answer = await here.ask("PUT", ONE, content=body, headers=JSON)

    assert is_problem(answer, 422)
    assert pointers(answer) == wrong


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"secret": ""}, {"/secret": "must not be empty"}),
        ({"secret": 5}, {"/secret": "must be a text"}),
        ({"remove": "yesterday"}, {"/remove": "must be a time such as 2026-03-01T12:00:00Z"}),
        ({"remove": "2026-03-01T12:00:00"}, {"/remove": "a point in time needs its zone"}),
        ({"remove": []}, {"/remove": "must be a time such as 2026-03-01T12:00:00Z"}),
        ({"drop": "x"}, {"/drop": "is unknown; check its spelling"}),
        (
            {"secret": "a", "remove": "2026-03-01T12:00:00Z"},
            {"": "either adds a secret or removes one: give secret or remove"},
        ),
    ],
)
async def test_a_wrong_rotation_is_refused(body: Any, wrong: dict[str, str]) -> None:
    async with site() as here:
        await here.put()
        answer = await here.ask("POST", f"{ONE}/rotate-webhook-secret", body)

    assert is_problem(answer, 422)
    assert pointers(answer) == wrong


@pytest.mark.parametrize("name", ["Buildium", "-a", "a-", "a_b", "a" * 65, "a.b", "%20", "%C3%A4", "a%0A"])
async def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    """The detail names the parameter, since it is no member of the body."""
    async with site() as here:
        answers = [
            await here.ask("GET", f"/api/integrations/{name}"),
            await here.ask("PUT", f"/api/integrations/{name}", {**BODY, "modus": 1}),
        ]

    assert all(is_problem(answer, 422) for answer in answers)
    assert all("The path parameter name must match" in answer.json()["detail"] for answer in answers)
    assert answers[0].json()["errors"] == []
    assert set(pointers(answers[1])) == {"/modus"}


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 64])
async def test_a_usable_name_is_used(name: str) -> None:
    async with site() as here:
        assert (await here.put(name)).status_code == 201
        assert (await here.ask("GET", f"/api/integrations/{name}")).json()["name"] == name


NOT_JSON = [
    (b"{", " (line 1, column 1)"),
    (b'{"system":\n "buildium",}', " (line 2, column 13)"),
    (b"\xff\xfe", ""),
    (b'{"system": NaN}', ""),
    (b'{"system": "\\ud800"}', ""),
    (b"[" * 60_000, ""),
    (b'{"settings":' * 5000 + b"1" + b"}" * 5000, ""),
]


@pytest.mark.parametrize(("body", "place"), NOT_JSON)
async def test_a_body_that_is_no_json_is_refused(body: bytes, place: str) -> None:
    """400, with the place where its reading ended."""
    async with site() as here:
        answer = await here.ask("PUT", ONE, content=body, headers=JSON)

    assert is_problem(answer, 400)
    assert place in answer.json()["detail"]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", None]
)
async def test_another_media_type_is_refused(media_type: str | None) -> None:
    async with site() as here:
        await here.put()
        headers = {} if media_type is None else {"content-type": media_type}
        put = await here.ask("PUT", ONE, content=b"{}", headers=headers)
        rotated = await here.ask("POST", f"{ONE}/rotate-webhook-secret", content=b"{}", headers=headers)

    assert is_problem(put, 415)
    assert is_problem(rotated, 415)


async def test_json_with_a_charset_is_json() -> None:
    async with site() as here:
        answer = await here.ask(
            "PUT", ONE, content=b'{"system":"buildium"}', headers={"content-type": "application/json; charset=utf-8"}
        )

    assert answer.status_code == 201


async def test_a_body_has_a_limit() -> None:
    """64 KiB are taken, one byte more is not, whether its length is announced or not."""
    start, end = b'{"system":"buildium","secrets":{"clientSecret":"', b'"}}'
    fits = start + b"x" * (64 * 1024 - len(start) - len(end)) + end

    async def chunks() -> Any:
        yield fits
        yield b" "

    async with site() as here:
        taken = await here.ask("PUT", ONE, content=fits, headers=JSON)
        refused = await here.ask("PUT", ONE, content=fits + b" ", headers=JSON)
        unannounced = await here.ask("PUT", ONE, content=chunks(), headers=JSON)

    assert taken.status_code == 201
    assert is_problem(refused, 413)
    assert is_problem(unannounced, 413)


async def test_a_client_that_disconnects_in_its_body_causes_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as here:
        token = bearer()["authorization"]
        head = f"PUT {ONE} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-type: application/json\r\n"
        async with connected(here.port) as (_, writer):
            writer.write(head.encode() + b"content-length: 100\r\n\r\n{")
            await writer.drain()
        answer = await here.ask("GET", "/api/integrations")

    assert answer.json() == []
    assert caplog.records == []


# ------------------------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize("tag", ['"1"', "*", '"7", "1"'])
async def test_a_change_of_the_current_version_is_accepted(tag: str) -> None:
    async with site() as here:
        await here.put()
        answer = await here.ask("PUT", ONE, BODY, headers={"if-match": tag})

    assert answer.status_code == 200


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', '"one"', '""'])
@pytest.mark.parametrize(("method", "path", "body"), [row for row in NAMED if (row[0], row[1]) not in READS])
async def test_a_change_of_another_version_is_refused(tag: str, method: str, path: str, body: Any) -> None:
    """Every route that changes something, and nothing is changed."""
    async with site() as here:
        await here.put()
        answer = await here.ask(method, path, body, headers={"if-match": tag})

    assert is_problem(answer, 412)
    assert here.service.kept["default", "buildium"].state.version == 1


async def test_a_version_of_a_missing_integration_is_refused() -> None:
    """PUT with If-Match creates nothing; the other routes find nothing."""
    async with site() as here:
        put = await here.ask("PUT", ONE, BODY, headers={"if-match": "*"})
        deleted = await here.ask("DELETE", ONE, headers={"if-match": "*"})

    assert is_problem(put, 412)
    assert is_problem(deleted, 404)
    assert here.service.kept == {}


async def test_an_if_match_that_is_no_etag_is_refused() -> None:
    async with site() as here:
        await here.put()
        answers = [await here.ask("PUT", ONE, BODY, headers={"if-match": tag}) for tag in ("1", '"1', "", "*, *")]

    assert all(is_problem(answer, 400) for answer in answers)


async def test_a_concurrent_change_is_refused() -> None:
    """If-Match reaches the store: what changes after the comparison is 412; another conflict stays 409."""
    async with site() as here:
        await here.put()
        read = here.service.get

        async def overtaken(org: str, name: str) -> Any:
            state = await read(org, name)
            here.service.get = read  # type: ignore[method-assign]
            await here.service.enable(org, name, "another")
            return state

        here.service.get = overtaken  # type: ignore[method-assign]
        overtook = await here.ask("PUT", ONE, BODY, headers={"if-match": '"1"'})
        other = await here.ask("PUT", ONE, {"system": "rentsync"}, headers={"if-match": '"2"'})

    assert is_problem(overtook, 412)
    assert is_problem(other, 409)


# ----------------------------------------------------------------------------------------------- what the store refuses


async def test_a_conflict_is_answered_with_a_reason() -> None:
    """What the environment describes is neither enabled nor deleted here."""
    async with site() as here:
        await here.put()
        entry = here.service.kept["default", "buildium"]
        here.service.kept["default", "buildium"] = replace(entry, state=replace(entry.state, origin="environment"))
        answers = [await here.ask("POST", f"{ONE}/enable"), await here.ask("DELETE", ONE)]
        shown = await here.ask("GET", ONE)

    assert all(is_problem(answer, 409) for answer in answers)
    assert all("environment" in answer.json()["detail"] for answer in answers)
    assert shown.json()["origin"] == "environment"


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_every_route_is_unavailable_while_the_store_is(method: str, path: str, body: Any) -> None:
    async with site() as here:
        await here.put()
        here.service.away = True
        answer = await here.ask(method, path, body)

    assert is_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert "Kafka" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_an_unexpected_exception_is_logged_and_not_shown(
    method: str, path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has one line with the request's id; the answer has that id and no internal detail."""
    async with site() as here:
        await here.put()
        here.service.broken = True
        answer = await here.ask(method, path, body, headers={"x-request-id": "mine"})
        here.service.broken = False
        after = await here.ask("GET", "/api/integrations")

    assert is_problem(answer, 500)
    assert answer.headers["x-request-id"] == "mine"
    assert "bug" not in answer.text
    assert [record.getMessage() for record in caplog.records] == ["request mine: the API failed (RuntimeError)"]
    assert after.status_code == 200


# -------------------------------------------------------------------------------------------------- secrets stay secret


CANARY = "canary-4f1b9d-secret"


def bodies_with_a_canary() -> list[bytes]:
    place = f'"{CANARY}"'
    return [
        body.encode()
        for body in (
            f'{{"system":"buildium","secrets":{{"clientSecret":{place},"webhookSecret":[{place},{place}]}}}}',
            f'{{"system":{place}}}',
            f'{{"system":"buildium","mode":{place}}}',
            f'{{"system":"buildium","modus":{place}}}',
            f'{{"system":"buildium","settings":{place},"secrets":{place},"properties":{place}}}',
            f'{{"system":"buildium","settings":{{"unknown":{place}}}}}',
            f'{{"system":"buildium","secrets":{{"unknown":{place}}}}}',
            f'{{"system":"buildium","secrets":{{"clientSecret":[[{place}]],"clientId":{{"a":{place}}}}}}}',
            f'{{"system":"buildium","properties":{{"default":{place},"on":[{place}],"of":{place}}}}}',
            f'{{"secret":{place}}}',
            f'{{"secret":{place},"remove":{place}}}',
            f'{{"secret":[{place}]}}',
            f"[{place}]",
            place,
            f'{{"secret":{place}',
            f"{{{place}",
            f"{CANARY} = 5",
        )
    ]


async def test_no_answer_and_no_log_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    """The secret may be sent to any route in any form, and any error may occur."""
    caplog.set_level(logging.DEBUG)
    answers: list[httpx.Response] = []
    async with site() as here:
        for headers in (JSON, {"content-type": "text/plain"}, {}, {**JSON, **bearer("sync:read")}):
            for body in bodies_with_a_canary():
                answers += await _everywhere(here, body, headers)
        here.service.broken = True
        answers += await _everywhere(here, bodies_with_a_canary()[0], JSON)

    seen = {answer.status_code for answer in answers}
    assert {200, 201, 204, 400, 403, 404, 415, 422, 500} <= seen
    for answer in answers:
        assert CANARY not in answer.text
        assert CANARY not in str(answer.headers)
    assert CANARY not in caplog.text


async def _everywhere(here: Site, body: bytes, headers: dict[str, str]) -> list[httpx.Response]:
    before = [] if here.service.broken else [await here.put(secrets={"clientSecret": CANARY, "webhookSecret": CANARY})]
    return before + [
        await here.ask(method, path, content=body if method != "GET" else None, headers=headers)
        for method, path, _ in (*ROUTES[:2], *ROUTES[4:], ROUTES[2], ROUTES[3], ("POST", f"{ONE}/enable", None))
    ]


async def test_a_token_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a good one nor a wrong one."""
    caplog.set_level(logging.DEBUG)
    good = bearer("sync:read")["authorization"].removeprefix("Bearer ")
    async with site() as here:
        for text in (good, good[:-5], CANARY, f"{CANARY}.{CANARY}.{CANARY}"):
            answer = await here.ask("GET", ONE, headers={"authorization": f"Bearer {text}"})
            assert text not in answer.text + str(answer.headers)
            assert text not in caplog.text


def test_a_secret_of_a_request_is_not_in_its_repr() -> None:
    """Nor in that of what the store gets."""
    from streams.web.api.models import IntegrationInput

    body = IntegrationInput.model_validate({"system": "buildium", "secrets": {"a": CANARY, "b": [CANARY]}})

    assert CANARY not in repr(body) + str(body) + repr(body.wanted(None))
    assert body.wanted(None).secrets == {"a": SecretStr(CANARY), "b": (SecretStr(CANARY),)}


# ------------------------------------------------------------------------------------------------------- the rest of it


async def test_a_missing_resource_is_answered_with_a_reason() -> None:
    async with site() as here:
        paths = ("/api", "/api/", "/api/nothing", f"{ONE}/", f"{ONE}/start", "/docs", "/redoc", "/api/integrations/")
        answers = [await here.ask("GET", path) for path in paths]

    assert all(is_problem(answer, 404) for answer in answers)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", ONE, "DELETE, GET, HEAD, PUT"),
        ("POST", ONE, "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/api/integrations", "GET, HEAD"),
        ("POST", "/api/integrations", "GET, HEAD"),
        ("GET", f"{ONE}/enable", "POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
async def test_another_method_is_answered_with_those_that_are_allowed(method: str, path: str, allow: str) -> None:
    """All methods of the path, not those of its first route."""
    async with site() as here:
        answer = await here.ask(method, path)

    assert is_problem(answer, 405)
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/api/integrations", ONE])
async def test_head_is_get_without_its_body(path: str) -> None:
    async with site() as here:
        await here.put()
        whole, head = await here.ask("GET", path), await here.ask("HEAD", path)
        missing = await here.ask("HEAD", "/nothing")
        async with connected(here.port) as (reader, writer):
            writer.write(f"HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\nHEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            heads = [await reader.readuntil(b"\r\n\r\n") for _ in range(2)]

    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))
    assert missing.status_code == 404
    assert all(line.startswith(b"HTTP/1.1 ") for line in heads)


async def test_health_needs_no_token() -> None:
    """200 while requests can be answered, else 503 with the reason."""
    async with site() as here:
        well = await here.client.get("/healthz")
        here.health.append((False, "Kafka does not answer"))
        ill = await here.client.get("/healthz")

    assert (well.status_code, well.json()) == (200, {"ok": True})
    assert is_problem(ill, 503)
    assert ill.json()["detail"] == "Kafka does not answer"


async def test_the_root_lists_the_resources() -> None:
    """Every link works."""
    async with site() as here:
        index = await here.client.get("/")
        answers = [await here.ask("GET", link) for link in index.json()["links"].values()]

    assert (index.json()["name"], index.json()["version"]) == ("RentStream", "1.2.3")
    assert len(answers) == 9
    assert all(answer.status_code == 200 for answer in answers)


async def test_webhooks_are_not_handled_by_the_api() -> None:
    """Webhooks need no token and have their own problem documents."""
    async with site() as here, connected(here.port) as (reader, writer):
        body = b'{"EventName":"Rental.Updated"}'
        head = (
            f"POST /api/webhooks/buildium HTTP/1.1\r\nhost: x\r\nsignature: yes\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        reply = await read_reply(reader)

    assert reply.status == 202


async def test_many_concurrent_requests_are_answered() -> None:
    """A hundred requests of two orgs, each with the integrations of its own."""
    async with site() as here:
        await here.put("ours")
        await here.ask("PUT", "/api/integrations/theirs", BODY, headers=bearer(org="acme"))
        asked = [
            here.ask("GET", "/api/integrations", headers=bearer(org=org))
            for _ in range(50)
            for org in ("default", "acme")
        ]
        answers = await asyncio.gather(*asked)

    assert [[one["name"] for one in answer.json()] for answer in answers] == [["ours"], ["theirs"]] * 50
