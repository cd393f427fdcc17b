"""HTTP calls of every connector: the meaning of a status, immediate retries and network errors as values.

A status has the same meaning for every system (`meaning`). A request is repeated immediately only if that can help
(`Patience`). No error text of this module contains a header or a body, because those may hold secrets.
"""

import asyncio
import logging
import random as randomness
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

import httpx

from connectors.guard import GuardedTransport
from connectors.ports import Clock, Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable, may_call

log = logging.getLogger("connectors.http")

Answer = TypeVar("Answer")

# -------------------------------------------------------------------------------------------------------------- status

MEANINGS: Final[tuple[tuple[range, type[Failure] | None], ...]] = (
    (range(200, 300), None),
    (range(300, 400), Missing),  # none of the APIs redirects, so the configured URL is wrong
    (range(401, 402), Unauthorized),
    (range(403, 404), Unauthorized),
    (range(404, 405), Missing),
    (range(410, 411), Missing),
    (range(408, 409), Unavailable),
    (range(409, 410), Unavailable),  # the same request is still in process, by its idempotency key
    (range(425, 426), Unavailable),
    (range(429, 430), Throttled),
    (range(400, 500), Rejected),
)
"""The first row that contains the status applies; null is success, and a status in no row is Unavailable."""

LONGEST_RETRY_AFTER: Final = 86_400.0
"""Seconds. A ``Retry-After`` of more than a day is taken as a mistake of the server."""


def meaning(status: int, detail: str, retry_after: float | None = None) -> Failure | None:
    """Return the failure that a status stands for; null for a success."""
    kind = next((kind for statuses, kind in MEANINGS if status in statuses), Unavailable)
    if kind is None:
        return None
    if kind is Throttled:
        return Throttled(detail, retry_after, status)
    if kind is Unavailable:
        return Unavailable(detail, status, retry_after)
    return kind(detail, status=status)


def retry_after(header: str | None, now: datetime) -> float | None:
    """Return ``Retry-After`` (RFC 9110, 10.2.3), a number or a date, in seconds from now; null if it is not valid.

    The result is never negative and at most `LONGEST_RETRY_AFTER`.
    """
    value = (header or "").strip()
    if re.fullmatch(r"\d{1,15}(\.\d+)?", value, re.ASCII):
        return min(float(value), LONGEST_RETRY_AFTER)
    due = read_date(value)
    return None if due is None else min(max((due - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def read_date(header: str | None) -> datetime | None:
    """Return the time in a header such as ``Date`` (RFC 9110, 5.6.7); null if it is not valid."""
    try:
        found = parsedate_to_datetime(header or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def phrase(status: int) -> str:
    """Return a status with its reason phrase: ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


# --------------------------------------------------------------------------------------------------------- one exchange


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete HTTP response."""

    status: int
    headers: httpx.Headers
    body: bytes

    def failure(self, system: str, now: datetime, explanation: str = "") -> Failure | None:
        """Return the failure that the status stands for; null for a success.

        ``explanation`` is the system's own error text, if it may be shown; it becomes part of the detail.
        """
        detail = f"{system} answered {phrase(self.status)}" + (f": {explanation}" if explanation else "")
        return meaning(self.status, detail, retry_after(self.headers.get("retry-after"), now))


class CallFailed(Exception):  # noqa: N818 -- named after what has happened
    """Raised by an `httpx.Auth` whose preparation of a request has failed: the request was not sent."""

    def __init__(self, failure: Failure | None) -> None:
        self.failure = failure or Unavailable("the authentication failed", status=None)
        super().__init__(self.failure.detail)


async def exchange(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    system: str,
    seconds: float,
    most_bytes: int = 64 * 1024 * 1024,
    auth: httpx.Auth | None = None,
    idempotent: bool = False,
) -> Reply | Failure:
    """Send a request and read the whole response within ``seconds``; return a failure for any error.

    ``system`` is the name of the called system in error texts. A body is cut off after ``most_bytes``. An
    ``idempotent`` request, whose body has to be bytes, is sent again at once if a connection that was kept alive turns
    out to be closed (RFC 9110, 9.2.2).
    """
    await may_call()
    try:
        async with asyncio.timeout(seconds):
            for _ in range(STALE_CONNECTIONS if idempotent else 0):
                connected = _Connected()
                request.extensions = {**request.extensions, "trace": connected}
                try:
                    return await _sent(client, request, most_bytes, auth)
                except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    if connected.newly:
                        raise
            return await _sent(client, request, most_bytes, auth)
    except CallFailed as error:
        return error.failure
    except Exception as error:  # whatever is raised: the caller gets an outcome
        return _failure(system, error, seconds)


NETWORK: Final[tuple[tuple[type[Exception], type[Failure], str], ...]] = (
    (TimeoutError, Unavailable, "no answer in time"),
    (httpx.UnsupportedProtocol, Missing, "the configured URL cannot be called"),
    (httpx.InvalidURL, Missing, "the configured URL cannot be called"),
    (httpx.LocalProtocolError, Rejected, "the request is not valid HTTP; check the credentials for line breaks"),
    (httpx.ConnectTimeout, Unavailable, "the connection timed out"),
    (httpx.ReadTimeout, Unavailable, "the response timed out"),
    (httpx.WriteTimeout, Unavailable, "sending the request timed out"),
    (httpx.PoolTimeout, Unavailable, "no connection of the pool became free in time"),
    (httpx.ConnectError, Unavailable, "the connection failed"),
    (httpx.RemoteProtocolError, Unavailable, "the server closed the connection or did not send valid HTTP"),
    (httpx.ReadError, Unavailable, "the connection was closed"),
    (httpx.WriteError, Unavailable, "the connection was closed"),
    (httpx.DecodingError, Unavailable, "the response has an invalid content encoding"),
    (Exception, Unavailable, "the answer cannot be processed"),
)
"""What an exception of a call means; the first row that fits applies. Name resolution and TLS are a `ConnectError`."""


def _failure(system: str, error: Exception, seconds: float) -> Failure:
    """Return what an exception of a call means; only the message of a failed connect is shown: it quotes no request."""
    kind, words = next((kind, words) for raised, kind, words in NETWORK if isinstance(error, raised))
    if isinstance(error, TimeoutError):
        return kind(f"{system} did not answer within {seconds:g} s", status=None)
    if isinstance(error, httpx.ConnectError):
        words = f"{words} ({str(error) or 'no reason is known'})"
    elif not isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        log.warning("%s: a call raised %s", system, type(error).__name__, exc_info=error)
        words = f"{words} ({type(error).__name__})"
    return kind(f"{system}: {words}", status=None)


STALE_CONNECTIONS: Final = 3
"""Connections of the pool that may turn out to be closed, one after the other, before an error counts."""


class _Connected:
    """Trace of a request (httpcore): whether a connection was opened for it."""

    newly = False

    async def __call__(self, event: str, info: object) -> None:
        del info
        self.newly = self.newly or event == "connection.connect_tcp.started"


async def _sent(client: httpx.AsyncClient, request: httpx.Request, most_bytes: int, auth: httpx.Auth | None) -> Reply:
    response = await client.send(request, stream=True, auth=auth, follow_redirects=False)
    try:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most_bytes:
                # The status stays valid: a request that was accepted must not count as failed.
                break
    finally:
        await response.aclose()
    return Reply(response.status_code, response.headers, bytes(body))


class OpenClient(Protocol):
    """Opens an HTTP client: `open_client`, or in a test a client of an app in the same process."""

    def __call__(
        self,
        *,
        user_agent: str = "RentStream",
        seconds: float = 30.0,
        connections: int = 20,
        allow_private: bool = False,
    ) -> httpx.AsyncClient: ...


def open_client(
    *,
    user_agent: str = "RentStream",
    seconds: float = 30.0,
    connections: int = 20,
    allow_private: bool = False,
    any_address: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Return a client that does not follow redirects, so that credentials are sent to the configured host only.

    Proxy and certificate settings of the environment apply unless private addresses are allowed: those are reached
    without a proxy. ``seconds`` is the timeout of each network operation.

    Only public addresses are connected to, unless private ones are allowed, or ``any_address``. Through a proxy the
    proxy resolves the name, so there only the URL is judged, when it is configured.
    """
    certificates = _certificates(not allow_private)
    client = httpx.AsyncClient(
        headers={"user-agent": user_agent},
        timeout=httpx.Timeout(seconds),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        follow_redirects=False,
        trust_env=not allow_private,
        verify=certificates,
        transport=transport,
        event_hooks={"response": [_ignore_location]},
    )
    if transport is None and not allow_private and not any_address:
        # As an argument it would switch off the proxies of the environment, which have transports of their own.
        client._transport = GuardedTransport(certificates, connections)  # noqa: SLF001
    return client


async def _ignore_location(response: httpx.Response) -> None:
    """Remove ``Location``: httpx parses it even if it does not follow it, and raises if it is not valid."""
    response.headers.pop("location", None)


@lru_cache
def _certificates(trust_env: bool) -> ssl.SSLContext:
    """Return the certificates, read once: that takes 0.1 s, and a process has a client for each connection."""
    return httpx.create_ssl_context(trust_env=trust_env)


# --------------------------------------------------------------------------------------------------- immediate retries


@dataclass(frozen=True, slots=True)
class Patience:
    """The policy of retries within one call, in seconds; a call that still fails goes to the retry ladder (minutes)."""

    attempts: int = 3
    delay_seconds: float = 1.0
    timeout: float = 30.0
    longest_wait: float = 30.0
    """Seconds. A call with a longer ``Retry-After`` is not retried here but by the retry ladder."""

    def wait(self, attempt: int, failure: Failure, random: randomness.Random) -> float | None:
        """Return the seconds to wait after the failed ``attempt`` (counted from 1); null if there is no other attempt.

        Only 429, 408, 425, 5xx and network errors are retried. The delay doubles with each attempt and has a jitter
        between half and all of it, so that calls that failed at the same time are not repeated at the same time.
        """
        if attempt >= self.attempts or not isinstance(failure, (Throttled, Unavailable)):
            return None
        requested = failure.retry_after or 0.0
        if requested > self.longest_wait:
            return None
        backoff = min(self.delay_seconds * 2.0 ** min(attempt - 1, 16), self.longest_wait)
        return max(requested, backoff * random.uniform(0.5, 1.0))

    async def call(
        self, once: Callable[[], Awaitable[Answer | Failure]], clock: Clock, random: randomness.Random
    ) -> Answer | Failure:
        """Call ``once`` until it succeeds or no attempt is left; return the last answer."""
        attempt = 1
        while True:
            answer = await once()
            if not isinstance(answer, Failure):
                return answer
            pause = self.wait(attempt, answer, random)
            if pause is None:
                return answer
            await clock.sleep(pause)
            attempt += 1
