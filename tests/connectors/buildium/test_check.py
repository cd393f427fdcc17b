"""Tests of the connection test of Buildium, against the stand-in on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from connectors.budget import Budget, Limits
from connectors.buildium.check import OPTIONAL, check_buildium
from connectors.buildium.findings import (
    ENTITIES,
    judge_creation,
    judge_credentials,
    judge_order,
    judge_read,
    judge_total,
    judge_webhook_secrets,
    unexpected,
)
from connectors.buildium.settings import BuildiumSettings
from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, BuildiumStandIn, Portfolio, RateLimit, seed_portfolio
from connectors.checks import DEADLINE_SECONDS, Fail, Pass
from connectors.clock import SystemClock
from connectors.http import Reply, open_client
from connectors.ports import Checked, Clock, Unavailable
from connectors.serving import running
from schemas.base import EntityKind
from schemas.integrations import AccessLevel, CheckResult, CheckStatus
from tests.connectors.test_budget import MovableClock
from tests.connectors.test_endpoint import FakeNetwork

PASSED, FAILED, SKIPPED = CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.SKIPPED
OK, DENIED = AccessLevel.OK, AccessLevel.DENIED
UNSUPPORTED, UNTESTED = AccessLevel.UNSUPPORTED, AccessLevel.UNTESTED
FREE = Limits(in_flight=100, starts=10_000)
WEBHOOK_SECRET = "canary-webhook-secret"

NAMES = [
    "address",
    "tls",
    "credentials",
    "account",
    "permission_properties",
    "permission_units",
    "permission_leases",
    "permission_tenants",
    "permission_listings",
    "permission_owners",
    "permission_property_creation",
    "permission_owner_creation",
    "page_order",
    "total_count",
    "clock_skew",
    "webhook_secret",
]


class ShiftedClock(SystemClock):
    """A clock with a constant error."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


async def check(
    url: str, clock: Clock | None = None, limits: Limits = FREE, network: FakeNetwork | None = None, **env: str
) -> Checked:
    given = {
        "BUILDIUM_BASE_URL": url,
        "RENTSTREAM_ALLOW_PRIVATE": "1",
        "BUILDIUM_CLIENT_ID": DEMO_ID,
        "BUILDIUM_CLIENT_SECRET": DEMO_SECRET,
        "BUILDIUM_WEBHOOK_SECRET": WEBHOOK_SECRET,
        **env,
    }
    settings, time = BuildiumSettings.read(given), clock or SystemClock()
    budget = Budget(time, limits)
    async with open_client(allow_private=True) as client:
        try:
            checked = await check_buildium(settings, time, client, budget=budget, network=network)
        finally:
            await budget.aclose()
    for secret in (given["BUILDIUM_CLIENT_ID"], given["BUILDIUM_CLIENT_SECRET"], WEBHOOK_SECRET):
        assert not secret or secret not in repr(checked)
    assert all(result.fix for result in checked.checks if result.status is FAILED)
    return checked


def by_name(checked: Checked) -> Mapping[str, CheckResult]:
    return {result.name: result for result in checked.checks}


def not_passed(checked: Checked) -> dict[str, CheckStatus]:
    return {result.name: result.status for result in checked.checks if result.status is not PASSED}


@pytest.fixture
def portfolio() -> Portfolio:
    return seed_portfolio(SystemClock())


@pytest.fixture
async def standin(portfolio: Portfolio) -> BuildiumStandIn:
    return BuildiumStandIn(portfolio)


@pytest.fixture
async def url(standin: BuildiumStandIn) -> AsyncIterator[str]:
    async with running(standin) as url:
        yield url + "/v1"


async def test_a_good_connection_passes_every_check(url: str, standin: BuildiumStandIn) -> None:
    """The outcome contains the account's id and the access to every entity."""
    checked = await check(url)

    assert [result.name for result in checked.checks] == NAMES
    assert not_passed(checked) == {}
    assert checked.passed
    assert checked.account == standin.portfolio.account
    assert {one.entity: (one.read, one.create, one.update) for one in checked.access} == {
        "properties": (OK, OK, OK),
        "units": (OK, UNSUPPORTED, UNSUPPORTED),
        "leases": (OK, UNSUPPORTED, UNSUPPORTED),
        "tenants": (OK, UNSUPPORTED, UNSUPPORTED),
        "listings": (OK, UNSUPPORTED, UNSUPPORTED),
        "owners": (OK, OK, UNSUPPORTED),
    }


async def test_nothing_is_created(url: str, standin: BuildiumStandIn) -> None:
    """Both POSTs are answered with 422, and there is no other write."""
    before = set(standin.portfolio.properties), set(standin.portfolio.owners)
    await check(url)
    writes = [(call.method, call.path, call.status) for call in standin.calls if call.method != "GET"]

    assert sorted(writes) == [("POST", "/v1/rentals", 422), ("POST", "/v1/rentals/owners", 422)]
    assert (set(standin.portfolio.properties), set(standin.portfolio.owners)) == before


async def test_only_checks_in_the_table_are_optional(url: str) -> None:
    """Each name in the table is that of a check."""
    checked = await check(url)

    assert set(NAMES) >= set(OPTIONAL)
    assert {result.name for result in checked.checks if not result.required} == set(OPTIONAL)


async def test_the_test_observes_buildiums_limits(portfolio: Portfolio) -> None:
    """At most ten calls at once and ten in a second are made, so that no call is answered with 429."""
    standin = BuildiumStandIn(portfolio, limit=RateLimit())
    async with running(standin) as url, open_client(allow_private=True) as client:
        env = {"BUILDIUM_BASE_URL": url + "/v1", "RENTSTREAM_ALLOW_PRIVATE": "1", "BUILDIUM_WEBHOOK_SECRET": "s3cret",
               "BUILDIUM_CLIENT_ID": DEMO_ID, "BUILDIUM_CLIENT_SECRET": DEMO_SECRET}  # fmt: skip
        checked = await check_buildium(BuildiumSettings.read(env), SystemClock(), client)

    assert checked.passed
    assert not_passed(checked) == {}
    assert standin.throttled == 0


async def test_a_throttled_call_is_repeated(url: str, standin: BuildiumStandIn) -> None:
    """Another program may use the account; a throttled write had no effect and can be repeated."""
    standin.fail(429, path="/v1/leases", times=2)
    standin.fail(429, path="/v1/rentals/owners", retry_after="0.01")

    assert not_passed(await check(url)) == {}


async def test_a_call_that_is_throttled_repeatedly_fails(url: str, standin: BuildiumStandIn) -> None:
    standin.fail(429, path="/v1/leases", times=3)
    result = by_name(await check(url))["permission_leases"]

    assert result.status is FAILED
    assert "429 Too Many Requests" in result.detail
    assert "other programs" in (result.fix or "")


@pytest.mark.parametrize(
    ("client_id", "client_secret"), [(DEMO_ID, "canary-wrong-secret"), ("canary-wrong-id", DEMO_SECRET)]
)
async def test_a_wrong_key_fails_the_credentials_and_skips_the_rest(
    url: str, standin: BuildiumStandIn, client_id: str, client_secret: str
) -> None:
    checked = await check(url, BUILDIUM_CLIENT_ID=client_id, BUILDIUM_CLIENT_SECRET=client_secret)
    results = by_name(checked)

    assert not checked.passed
    assert results["credentials"].status is FAILED
    assert "401" in results["credentials"].detail
    assert "environment" in (results["credentials"].fix or "")
    assert {name for name, result in results.items() if result.status is PASSED} == {"address", "tls", "webhook_secret"}
    assert {(call.method, call.path) for call in standin.calls} == {("GET", "/v1/administration/account")}
    assert checked.account is None
    assert {one.read for one in checked.access} == {UNTESTED}


async def test_a_missing_key_fails_the_credentials_without_a_call(url: str, standin: BuildiumStandIn) -> None:
    checked = await check(url, BUILDIUM_CLIENT_SECRET="")

    assert by_name(checked)["credentials"].status is FAILED
    assert "not both set" in by_name(checked)["credentials"].detail
    assert not standin.calls


REQUIRED = {"properties", "units", "leases"}


@pytest.mark.parametrize("entity", [entity.name for entity in ENTITIES])
async def test_a_denied_permission_is_reported(url: str, standin: BuildiumStandIn, entity: str) -> None:
    """The fix names the permission; the test fails only for a permission that syncing needs."""
    standin.deny(entity)
    checked = await check(url)
    result = by_name(checked)[f"permission_{entity}"]
    access = {one.entity: one for one in checked.access}

    assert result.status is FAILED
    assert result.required == (entity in REQUIRED) == (not checked.passed)
    assert "`View` of Rentals > " in (result.fix or "")
    assert access[entity].read is DENIED
    assert {one.read for one in checked.access if one.entity != entity} == {OK}
    dependents = {"properties": {"permission_property_creation", "total_count"}, "units": {"page_order"},
                  "owners": {"permission_owner_creation"}}.get(entity, set())  # fmt: skip
    assert set(not_passed(checked)) == {f"permission_{entity}", *dependents}
    assert access[entity].create in {UNTESTED, UNSUPPORTED}


@pytest.mark.parametrize(("entity", "name"), [("properties", "property"), ("owners", "owner")])
async def test_a_read_only_key_is_a_warning(url: str, standin: BuildiumStandIn, entity: str, name: str) -> None:
    standin.deny(f"{entity}:edit")
    checked = await check(url)
    access = {one.entity: one for one in checked.access}

    assert not_passed(checked) == {f"permission_{name}_creation": FAILED}
    assert "`Edit`" in (by_name(checked)[f"permission_{name}_creation"].fix or "")
    assert (access[entity].read, access[entity].create) == (OK, DENIED)
    assert access["properties"].update is (DENIED if entity == "properties" else OK)
    assert checked.passed


async def test_a_key_without_account_information_is_a_warning(url: str, standin: BuildiumStandIn) -> None:
    """The account's id is null."""
    standin.deny("account")
    checked = await check(url)

    assert not_passed(checked) == {"account": FAILED}
    assert "Administration > Account Information" in (by_name(checked)["account"].fix or "")
    assert "not required" in by_name(checked)["account"].detail
    assert checked.account is None
    assert checked.passed


async def test_a_missing_webhook_secret_is_a_warning(url: str) -> None:
    checked = await check(url, BUILDIUM_WEBHOOK_SECRET="")

    assert not_passed(checked) == {"webhook_secret": FAILED}
    assert by_name(checked)["webhook_secret"].detail.startswith(
        "No webhook secret is set (not required: without webhooks"
    )
    assert checked.passed


async def test_every_webhook_secret_of_a_rotation_is_tested(url: str) -> None:
    checked = await check(url, BUILDIUM_WEBHOOK_SECRET=f"{WEBHOOK_SECRET},canary-older-secret")

    assert "2 webhook secrets" in by_name(checked)["webhook_secret"].detail


@pytest.mark.parametrize(("seconds", "status"), [(60, PASSED), (-60, PASSED), (200, FAILED), (-200, FAILED)])
async def test_a_clock_that_is_wrong_fails(url: str, seconds: int, status: CheckStatus) -> None:
    """The check fails before the difference reaches 300 s, at which webhooks are refused."""
    checked = await check(url, clock=ShiftedClock(timedelta(seconds=seconds)))

    assert by_name(checked)["clock_skew"].status is status
    assert checked.passed is (status is PASSED)


async def test_a_wrong_host_fails_the_address_and_skips_the_rest() -> None:
    network = FakeNetwork(error=OSError(-2, "Name or service not known"))
    checked = await check("http://api.buildium.invalid/v1", network=network)

    assert by_name(checked)["address"].status is FAILED
    assert "api.buildium.invalid" in by_name(checked)["address"].detail
    assert set(not_passed(checked).values()) == {FAILED, SKIPPED}
    assert [result.name for result in checked.checks if result.status is PASSED] == ["webhook_secret"]
    assert not checked.passed


async def test_a_port_without_a_server_fails() -> None:
    async with running(BuildiumStandIn(seed_portfolio(SystemClock()))) as url:
        pass
    checked = await check(url + "/v1")

    assert by_name(checked)["credentials"].status is FAILED
    assert "the connection failed" in by_name(checked)["credentials"].detail


async def test_tls_to_a_plain_port_fails(url: str, standin: BuildiumStandIn) -> None:
    """No credentials are sent."""
    checked = await check(url.replace("http:", "https:"))

    assert by_name(checked)["tls"].status is FAILED
    assert by_name(checked)["credentials"].status is SKIPPED
    assert not standin.calls


@asynccontextmanager
async def answering(status: int, body: bytes, kind: bytes = b"text/html") -> AsyncIterator[tuple[str, list[str]]]:
    """Start a server with one fixed answer; yield its URL and the methods of the received calls."""
    methods: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        methods.append(scope["method"])
        headers = [(b"content-type", kind), (b"location", b"https://elsewhere.example/")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async with running(app) as url:
        yield url + "/v1", methods


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Welcome</html>"),
        (200, b"[]"),
        (200, b'{"Id": true}'),
        (200, b"{" * 100_000),
        (403, b"<html>Blocked</html>"),
        (404, b"Not Found"),
        (301, b""),
        (500, b'{"UserMessage":"boom","Errors":[]}'),
        (204, b""),
    ],
)
async def test_another_server_fails_and_receives_no_write(status: int, body: bytes) -> None:
    async with answering(status, body) as (url, methods):
        checked = await check(url)

    assert by_name(checked)["credentials"].status is FAILED
    assert not checked.passed
    assert set(methods) == {"GET"}


async def test_secrets_that_a_server_repeats_are_masked() -> None:
    """No part of a secret remains if the message is truncated inside of it; `check` asserts that no secret is shown."""
    message = "x" * 290 + DEMO_SECRET + DEMO_ID
    body = json.dumps({"UserMessage": message, "ErrorCode": None, "Errors": []}).encode()
    async with answering(400, body, b"application/json") as (url, _):
        checked = await check(url)

    assert "xxx" in by_name(checked)["credentials"].detail
    assert DEMO_SECRET[:8] not in repr(checked)


async def test_the_test_of_a_server_that_never_answers_ends_after_ten_seconds() -> None:
    """The results of earlier checks are kept."""
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    clock = MovableClock()
    async with running(app) as url:
        checking = asyncio.create_task(check(url + "/v1", clock=clock))
        await asked.wait()
        await clock.advance(DEADLINE_SECONDS - 0.1)
        assert not checking.done()
        await clock.advance(0.1)
        checked = await asyncio.wait_for(checking, 5)
    results = by_name(checked)

    assert (results["address"].status, results["tls"].status, results["webhook_secret"].status) == (PASSED,) * 3
    assert results["credentials"].status is FAILED
    assert "did not finish within" in results["credentials"].detail
    assert {results[name].status for name in NAMES[3:-1]} == {SKIPPED}


# ------------------------------------------------------------------------------------------------- findings of answers

PROPERTIES = ENTITIES[0]
ERROR = b'{"UserMessage":"Invalid.","ErrorCode":null,"Errors":[]}'


def reply(status: int, body: Any = b"", **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), content)


@pytest.mark.parametrize(
    ("answer", "access", "passed"),
    [
        (reply(422, ERROR), OK, True),
        (reply(400, ERROR), OK, True),
        (reply(400, b"<html>"), UNTESTED, False),
        (reply(403, ERROR), DENIED, False),
        (reply(403, b"<html>"), UNTESTED, False),
        (reply(201, {"Id": 1}), UNTESTED, False),
        (reply(405), UNTESTED, False),
        (reply(415, ERROR), UNTESTED, False),
        (reply(500, ERROR), UNTESTED, False),
        (Unavailable("no connection"), UNTESTED, False),
    ],
)
def test_only_a_refusal_of_the_empty_body_proves_the_permission(
    answer: Reply | Unavailable, access: AccessLevel, passed: bool
) -> None:
    judged = judge_creation(PROPERTIES, answer)

    assert judged.access is access
    assert isinstance(judged.finding, Pass) is passed


@pytest.mark.parametrize(
    ("answer", "access"),
    [
        (reply(200, []), OK),
        (reply(200, [{"Id": 1}]), OK),
        (reply(200, {"Id": 1}), UNTESTED),
        (reply(200, b"<html>"), UNTESTED),
        (reply(403, ERROR), DENIED),
        (reply(401, ERROR), UNTESTED),
        (reply(503), UNTESTED),
        (Unavailable("no connection"), UNTESTED),
    ],
)
def test_only_a_list_proves_that_it_may_be_read(answer: Reply | Unavailable, access: AccessLevel) -> None:
    judged = judge_read(PROPERTIES, answer)

    assert judged.access is access
    assert isinstance(judged.finding, Pass) is (access is OK)


def page(*ids: int) -> Reply:
    return reply(200, [{"Id": one} for one in ids])


@pytest.mark.parametrize(
    ("first", "second", "passed", "expected"),
    [
        (page(1, 2), page(3, 4), True, "do not overlap"),
        (page(1, 2), page(3), True, "do not overlap"),
        (page(1, 2), page(), True, "too few"),
        (page(), page(), True, "0 units"),
        (page(1, 2), page(2, 3), False, "1, 2, 2, 3"),
        (page(2, 1), page(3, 4), False, "2, 1, 3, 4"),
        (page(3, 4), page(1, 2), False, "do not ascend"),
        (page(1, 2), reply(503), False, "503"),
        (Unavailable("no connection"), page(1), False, "no connection"),
        (page(1, 2), reply(200, {}), False, "200"),
    ],
)
def test_pages_have_to_ascend_without_overlap(
    first: Reply | Unavailable, second: Reply | Unavailable, passed: bool, expected: str
) -> None:
    finding = judge_order(first, second)

    assert isinstance(finding, Pass) is passed
    assert expected in finding.detail


@pytest.mark.parametrize(
    ("total", "passed"), [("5", True), ("0", True), ("", False), ("many", False), ("-1", False), ("٣", False)]
)
def test_a_total_count_is_a_whole_number(total: str, passed: bool) -> None:
    headers = httpx.Headers([(b"x-total-count", total.encode())])

    assert isinstance(judge_total(Reply(200, headers, b"[]")), Pass) is passed
    assert isinstance(judge_total(reply(200)), Fail)


def test_webhook_secrets_sign_and_verify() -> None:
    now = datetime(2025, 11, 22, tzinfo=UTC)

    assert isinstance(judge_webhook_secrets([SecretStr("a"), SecretStr("b")], now), Pass)
    assert isinstance(judge_webhook_secrets([], now), Fail)


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        (reply(401), "client id"),
        (reply(404), "base URL"),
        (reply(429), "in a minute"),
        (reply(503), "status page"),
        (Unavailable("no connection"), "firewall"),
    ],
)
def test_an_unexpected_answer_has_a_fix(answer: Reply | Unavailable, fix: str) -> None:
    assert fix in unexpected(answer).fix


def test_a_403_of_the_account_still_proves_the_key() -> None:
    """The 403 may have any JSON form, because a gateway may answer instead of the API."""
    assert isinstance(judge_credentials(reply(403, {"message": "Forbidden"}), "h"), Pass)


async def test_a_new_account_without_units_can_be_tested(url: str, standin: BuildiumStandIn) -> None:
    for rental in tuple(standin.portfolio.ids(EntityKind.PROPERTY)):
        standin.portfolio.remove_property(rental)
    checked = await check(url)

    assert not_passed(checked) == {}
    assert "0 properties" in by_name(checked)["total_count"].detail
