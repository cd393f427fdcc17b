"""Tests of the connection test of RentSync, against the stand-in on a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from connectors.checks import DEADLINE_SECONDS, Fail, Pass
from connectors.clock import SystemClock
from connectors.http import open_client
from connectors.ports import Checked, Clock
from connectors.rentsync.check import OPTIONAL, Probe, check_rentsync, judge_auth, judge_settings
from connectors.rentsync.settings import RentSyncSettings
from connectors.rentsync.standin import PATH, RentSyncStandIn
from connectors.serving import running
from schemas.integrations import AccessLevel, CheckResult, CheckStatus
from tests.connectors.test_budget import MovableClock
from tests.connectors.test_endpoint import FakeNetwork

PASSED, FAILED, SKIPPED = CheckStatus.PASSED, CheckStatus.FAILED, CheckStatus.SKIPPED
CANARY = "canary-api-key"
NAMES = ["settings", "address", "tls", "reachable", "auth", "clock_skew"]


class ShiftedClock(SystemClock):
    """A clock that is ten minutes ahead."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=10)


async def check(url: str, key: str = CANARY, clock: Clock | None = None, network: FakeNetwork | None = None) -> Checked:
    env = {"RENTSYNC_URL": url, "RENTSYNC_API_KEY": key, "RENTSTREAM_ALLOW_PRIVATE": "1"}
    async with open_client(allow_private=True) as client:
        checked = await check_rentsync(RentSyncSettings.read(env), clock or SystemClock(), client, network=network)
    assert [result.name for result in checked.checks] == NAMES
    assert key not in repr(checked)
    assert all(result.fix for result in checked.checks if result.status is FAILED)
    return checked


def by_name(checked: Checked) -> Mapping[str, CheckResult]:
    return {result.name: result for result in checked.checks}


def not_passed(checked: Checked) -> dict[str, CheckStatus]:
    return {result.name: result.status for result in checked.checks if result.status is not PASSED}


@asynccontextmanager
async def answering(answer: Callable[[Request], Response]) -> AsyncIterator[tuple[str, list[Request]]]:
    """Start a receiver that answers with a function; yield its URL and the received requests."""
    asked: list[Request] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        asked.append(request)
        await answer(request)(scope, receive, send)

    async with running(app) as url:
        yield url + PATH, asked


async def test_a_receiver_that_requires_credentials_proves_them() -> None:
    """It refuses the request without credentials and accepts the one with them; nothing is delivered."""
    standin = RentSyncStandIn(CANARY, SystemClock())
    async with running(standin.app) as url:
        checked = await check(url + PATH)

    assert not_passed(checked) == {}
    assert checked.passed
    assert "401 Unauthorized without them and 204 No Content with them" in by_name(checked)["auth"].detail
    assert (standin.accepted, standin.statuses) == ([], [])
    (units,) = checked.access
    assert (units.read, units.create) == (AccessLevel.UNSUPPORTED, AccessLevel.UNTESTED)


async def test_a_wrong_key_is_denied() -> None:
    standin = RentSyncStandIn("right", SystemClock())
    async with running(standin.app) as url:
        checked = await check(url + PATH)

    assert not_passed(checked) == {"auth": FAILED}
    assert not checked.passed
    assert "401" in by_name(checked)["auth"].detail
    assert [one.create for one in checked.access] == [AccessLevel.DENIED]


@pytest.mark.parametrize("status", [200, 404, 405])
async def test_a_receiver_that_requires_no_credentials_proves_nothing(status: int) -> None:
    """The receiver is reachable, and the result states that only a delivery proves the credentials."""
    async with answering(lambda _: Response(None, status)) as (url, asked):
        checked = await check(url)

    assert checked.passed
    assert "only the first delivery proves them" in by_name(checked)["auth"].detail
    assert ("path is not proven" in by_name(checked)["reachable"].detail) is (status == 404)
    assert {request.method for request in asked} == {"OPTIONS", "GET"}


async def test_the_key_is_sent_only_after_the_receiver_was_reached() -> None:
    """The first request of each method has no credentials."""
    async with answering(lambda _: Response(None, 503)) as (url, asked):
        checked = await check(url)

    assert not_passed(checked) == {"reachable": FAILED, "auth": SKIPPED, "clock_skew": SKIPPED}
    assert not [request for request in asked if "x-api-key" in request.headers]


@pytest.mark.parametrize(
    ("answer", "check_name", "expected"),
    [
        (lambda _: Response(None, 503), "reachable", "503"),
        (lambda _: RedirectResponse("https://elsewhere.example/"), "reachable", "redirects"),
        (lambda request: Response(None, 500 if "x-api-key" in request.headers else 204), "auth", "could not be tested"),
        (lambda request: HTMLResponse(request.headers.get("x-api-key", ""), 403), "auth", "403"),
    ],
)
async def test_other_answers_fail_with_a_reason(
    answer: Callable[[Request], Response], check_name: str, expected: str
) -> None:
    async with answering(answer) as (url, _):
        checked = await check(url)

    assert by_name(checked)[check_name].status is FAILED
    assert expected in by_name(checked)[check_name].detail


async def test_a_wrong_host_fails_the_address() -> None:
    checked = await check("http://rentsync.invalid/sync", network=FakeNetwork(error=OSError(-2, "unknown")))

    assert not_passed(checked) == {"address": FAILED} | dict.fromkeys(NAMES[2:], SKIPPED)


async def test_a_port_without_a_server_is_not_reached() -> None:
    async with answering(lambda _: Response()) as (url, _):
        pass
    checked = await check(url)

    assert by_name(checked)["reachable"].status is FAILED
    assert "the connection failed" in by_name(checked)["reachable"].detail


async def test_a_connection_closed_during_the_check_of_credentials_fails() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if "x-api-key" in Request(scope).headers:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            return
        await Response(None, 401)(scope, receive, send)

    async with running(app) as url:
        checked = await check(url)

    assert by_name(checked)["auth"].status is FAILED


async def test_tls_to_a_plain_port_fails() -> None:
    standin = RentSyncStandIn(CANARY, SystemClock())
    async with running(standin.app) as url:
        checked = await check(url.replace("http:", "https:") + PATH)

    assert by_name(checked)["tls"].status is FAILED
    assert by_name(checked)["auth"].status is SKIPPED


async def test_a_clock_that_is_wrong_is_a_warning() -> None:
    """The clock of the receiver may be the wrong one."""
    standin = RentSyncStandIn(CANARY, SystemClock())
    async with running(standin.app) as url:
        checked = await check(url + PATH, clock=ShiftedClock())

    assert not_passed(checked) == {"clock_skew": FAILED}
    assert checked.passed
    assert {result.name for result in checked.checks if not result.required} == set(OPTIONAL)


async def test_the_test_of_a_receiver_that_never_answers_ends_after_ten_seconds() -> None:
    asked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    clock = MovableClock()
    async with running(app) as url:
        checking = asyncio.create_task(check(url, clock=clock))
        await asked.wait()
        await clock.advance(DEADLINE_SECONDS)
        checked = await asyncio.wait_for(checking, 5)

    assert not_passed(checked) == {"reachable": FAILED, "auth": SKIPPED, "clock_skew": SKIPPED}


async def test_the_stand_in_checks_the_key_for_every_method() -> None:
    """The answer to another method lists the allowed ones."""
    standin = RentSyncStandIn(CANARY, SystemClock())
    methods = ("OPTIONS", "HEAD", "GET", "POST")
    async with running(standin.app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        wrong = [(await client.request(one, PATH, headers={"x-api-key": "wrong"})).status_code for one in methods]
        right = [await client.request(one, PATH, headers={"x-api-key": CANARY}) for one in methods]

    assert wrong == [401] * 4
    assert [answer.status_code for answer in right] == [204, 405, 405, 415]
    assert {answer.headers.get("allow") for answer in right[:3]} == {"OPTIONS, POST"}


# ------------------------------------------------------------------------------------------------- findings of answers


@pytest.mark.parametrize(
    ("probes", "passed", "access", "expected"),
    [
        ([(401, 405), (401, 204)], True, AccessLevel.UNTESTED, "accepts"),
        ([(403, 404), (200, 200)], True, AccessLevel.UNTESTED, "accepts"),
        ([(200, 200), (405, 405)], True, AccessLevel.UNTESTED, "only the first delivery"),
        ([(204, 204), (403, 403)], True, AccessLevel.UNTESTED, "only the first delivery"),
        ([(503, 503), (200, 200)], True, AccessLevel.UNTESTED, "for GET"),
        ([(401, 401), (401, 401)], False, AccessLevel.DENIED, "OPTIONS was answered with 401"),
        ([(204, 204), (401, 401)], False, AccessLevel.DENIED, "GET was answered with 401"),
        ([(200, 401), (200, 200)], False, AccessLevel.DENIED, "refuses"),
        ([(403, 403), (403, 403)], False, AccessLevel.DENIED, "403"),
        ([(401, 500), (401, 429)], False, AccessLevel.UNTESTED, "could not be tested"),
    ],
)
def test_credentials_are_judged_by_their_effect_on_the_answers(
    probes: list[tuple[int, int]], passed: bool, access: AccessLevel, expected: str
) -> None:
    """A 403 of only one method may come from a gateway that does not allow the method."""
    methods = ("OPTIONS", "GET")
    finding, level = judge_auth([Probe(method, *pair) for method, pair in zip(methods, probes, strict=True)])

    assert isinstance(finding, Pass) is passed
    assert level is access
    assert expected in finding.detail


def test_settings_that_cannot_be_used_fail() -> None:
    """Settings that were created without validation report an unavailable value."""
    env = {"RENTSYNC_URL": "https://rentsync.example", "RENTSYNC_API_KEY": "k"}
    good = RentSyncSettings.read(env)
    bad = good.model_copy(update={"auth": "carrier-pigeon"})

    assert isinstance(judge_settings(good), Pass)
    finding = judge_settings(bad)
    assert isinstance(finding, Fail)
    assert "carrier-pigeon" in finding.detail
    assert "api-key" in finding.fix
