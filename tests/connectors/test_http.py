"""Tests of HTTP calls: the meaning of statuses, immediate retries and Retry-After."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http import (
    LONGEST_RETRY_AFTER,
    Patience,
    Reply,
    exchange,
    meaning,
    open_client,
    phrase,
    retry_after,
)
from connectors.ports import MAY_CALL, Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable
from tests.connectors import SLOW_MACHINE

NOW = datetime(2025, 11, 22, 12, 0, tzinfo=UTC)


class SkippingClock:
    """A clock whose sleep returns at once and advances its time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW + timedelta(seconds=sum(self.slept))

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((200, 201, 202, 204, 207, 299), None),
        ((301, 302, 307, 308), Missing),
        ((400, 402, 405, 406, 413, 415, 418, 422, 451, 499), Rejected),
        ((401, 403), Unauthorized),
        ((404, 410), Missing),
        ((408, 409, 425, 500, 502, 503, 504, 599, 600, 999, 100), Unavailable),
        ((429,), Throttled),
    ],
)
def test_each_status_has_one_meaning(statuses: tuple[int, ...], kind: type[Failure] | None) -> None:
    for status in statuses:
        found = meaning(status, "why", 3.0)

        assert type(found) is (kind or type(None)), status
        assert found is None or (found.status, found.detail) == (status, "why")


@SLOW_MACHINE
@given(st.integers(min_value=-5, max_value=2000))
def test_every_number_has_a_meaning(status: int) -> None:
    assert (meaning(status, "") is None) == (200 <= status < 300)
    assert phrase(status).startswith(str(status))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("999999999", LONGEST_RETRY_AFTER),
        ("Sat, 22 Nov 2025 12:00:30 GMT", 30.0),
        ("Sat, 22 Nov 2025 11:00:00 GMT", 0.0),
        ("Saturday, 22-Nov-25 12:00:30 GMT", 30.0),
        ("Sat, 22 Nov 2025 12:00:30", 30.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-3", None),
        ("٣", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@SLOW_MACHINE
@given(st.text())
def test_no_retry_after_header_raises(header: str) -> None:
    found = retry_after(header, NOW)

    assert found is None or 0 <= found <= LONGEST_RETRY_AFTER


async def answers(patience: Patience, *results: str | Failure) -> tuple[str | Failure, int, list[float]]:
    clock, left, calls = SkippingClock(), list(results), 0

    async def once() -> str | Failure:
        nonlocal calls
        calls += 1
        return left.pop(0)

    return await patience.call(once, clock, random.Random(1)), calls, clock.slept


@pytest.mark.parametrize("failure", [Unavailable("x", 503), Unavailable("x"), Unavailable("x", 408), Throttled("x")])
async def test_transient_failures_are_retried(failure: Failure) -> None:
    assert (await answers(Patience(3), failure, failure, "yes"))[:2] == ("yes", 3)
    assert (await answers(Patience(3), failure, failure, failure))[:2] == (failure, 3)
    assert (await answers(Patience(1), failure))[:2] == (failure, 1)


@pytest.mark.parametrize("failure", [Rejected("x", 422), Unauthorized("x"), Missing("x")])
async def test_permanent_failures_are_not_retried(failure: Failure) -> None:
    assert await answers(Patience(5), failure) == (failure, 1, [])


async def test_delays_double_with_a_jitter_of_up_to_half() -> None:
    down = Unavailable("x", 503)
    _, _, slept = await answers(Patience(5, delay_seconds=1.0), down, down, down, down, down)

    assert len(slept) == 4
    for pause, whole in zip(slept, (1.0, 2.0, 4.0, 8.0), strict=True):
        assert whole / 2 <= pause <= whole


async def test_retry_after_is_honoured_up_to_the_longest_wait() -> None:
    assert (await answers(Patience(2), Throttled("x", 9.0), "yes"))[1:] == (2, [9.0])
    assert (await answers(Patience(9), Throttled("x", 300.0)))[1:] == (1, [])


async def send(answer: httpx.Response | Exception, seconds: float = 5.0, most: int = 1000) -> Reply | Failure:
    async def app(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, httpx.Response)
        return answer

    async with open_client(transport=httpx.MockTransport(app)) as client:
        request = client.build_request("GET", "https://a.example/", headers={"x-secret": "canary"})
        return await exchange(client, request, system="PMS", seconds=seconds, most_bytes=most)


async def test_a_response_is_read_completely() -> None:
    reply = await send(httpx.Response(503, headers={"retry-after": "4"}, content=b"down"))

    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (503, b"down")
    assert reply.failure("PMS", NOW, "later") == Unavailable(
        "PMS answered 503 Service Unavailable: later", 503, retry_after=4.0
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), Unavailable),
        (httpx.ConnectTimeout("canary"), Unavailable),
        (httpx.ReadTimeout("canary"), Unavailable),
        (httpx.RemoteProtocolError("canary"), Unavailable),
        (httpx.ReadError("canary"), Unavailable),
        (httpx.ProxyError("canary"), Unavailable),
        (httpx.UnsupportedProtocol("canary"), Missing),
        (httpx.LocalProtocolError("Illegal header value b'canary'"), Rejected),
    ],
)
async def test_a_network_error_is_returned_without_secrets(error: Exception, kind: type[Failure]) -> None:
    answer = await send(error)

    assert type(answer) is kind
    assert "canary" not in repr(answer)


async def test_a_too_large_body_is_cut_off() -> None:
    """The status stays valid: a request that was accepted must not count as failed."""
    endless = await send(httpx.Response(200, content=b"x" * 2000))
    assert isinstance(endless, Reply)
    assert (endless.status, len(endless.body) < 3000) == (200, True)


async def test_a_timeout_is_unavailable() -> None:
    async def app(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(200)

    async with open_client(transport=httpx.MockTransport(app)) as client:
        answer = await exchange(client, client.build_request("GET", "https://a.example/"), system="PMS", seconds=0.01)

    assert answer == Unavailable("PMS did not answer within 0.01 s")


async def test_no_redirect_is_followed() -> None:
    answer = await send(httpx.Response(302, headers={"location": "https://evil.example/"}))

    assert isinstance(answer, Reply)
    assert type(answer.failure("PMS", NOW)) is Missing


async def test_a_call_waits_for_the_permission_of_its_runner_and_that_time_does_not_count() -> None:
    allowed, sent = asyncio.Event(), []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.path)
        return httpx.Response(200)

    async def call() -> Reply | Failure:
        MAY_CALL.set(allowed.wait)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            return await exchange(client, client.build_request("GET", "http://x/y"), system="X", seconds=0.2)

    calling = asyncio.create_task(call())
    await asyncio.sleep(0.4)
    assert sent == []
    allowed.set()

    assert isinstance(await calling, Reply)
    assert sent == ["/y"]
