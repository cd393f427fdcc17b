"""HTTP as every connector speaks it: what an answer's status means, how long to be patient, whom not to call.

The laws: a status means the same everywhere (`meaning`); the same request is repeated at once only where that may help
(`Patience`); and no sentence made here carries a header or a body, because those may hold secrets. Which addresses may
be called is in `connectors.addresses`.
"""

import asyncio
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

from connectors.ports import Clock, Failure, Missing, Rejected, Throttled, Unauthorized, Unavailable

Answer = TypeVar("Answer")

# ------------------------------------------------------------------------------------------------- what a status means

MEANINGS: Final[tuple[tuple[range, type[Failure] | None], ...]] = (
    (range(200, 300), None),
    (range(300, 400), Missing),  # no API that we speak to redirects: the address is wrong
    (range(401, 402), Unauthorized),
    (range(403, 404), Unauthorized),
    (range(404, 405), Missing),
    (range(410, 411), Missing),
    (range(408, 409), Unavailable),
    (range(425, 426), Unavailable),
    (range(429, 430), Throttled),
    (range(400, 500), Rejected),
)
"""THE TABLE: the first row that holds the status says what it means; null is success, no row at all is Unavailable."""

LONGEST_RETRY_AFTER: Final = 86_400.0
"""A receiver that asks for more than a day made a mistake."""


def meaning(status: int, detail: str, retry_after: float | None = None) -> Failure | None:
    """What an answer's status means to us; null where it is a success."""
    kind = next((kind for statuses, kind in MEANINGS if status in statuses), Unavailable)
    if kind is None:
        return None
    if kind is Throttled:
        return Throttled(detail, retry_after, status)
    if kind is Unavailable:
        return Unavailable(detail, status, retry_after)
    return kind(detail, status=status)


def retry_after(header: str | None, now: datetime) -> float | None:
    """``Retry-After`` (RFC 9110, 10.2.3) in seconds from now: a number or a date, never negative, capped."""
    given = (header or "").strip()
    if re.fullmatch(r"\d{1,15}(\.\d+)?", given, re.ASCII):
        return min(float(given), LONGEST_RETRY_AFTER)
    try:
        due = parsedate_to_datetime(given)
    except (ValueError, TypeError, OverflowError):
        return None
    aware = due if due.tzinfo else due.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def phrase(status: int) -> str:
    """A status as people read it: ``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


# --------------------------------------------------------------------------------------------------------- one exchange


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer that was read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes

    def failure(self, who: str, now: datetime, said: str = "") -> Failure | None:
        """What it means; ``who`` answered and, if it is fit to be shown, what was ``said``."""
        detail = f"{who} answered {phrase(self.status)}" + (f": {said}" if said else "")
        return meaning(self.status, detail, retry_after(self.headers.get("retry-after"), now))


async def exchange(
    client: httpx.AsyncClient,
    request: httpx.Request,
    *,
    who: str,
    seconds: float,
    most_bytes: int = 64 * 1024 * 1024,
    auth: httpx.Auth | None = None,
) -> Reply | Failure:
    """Sends a request and reads the whole answer within ``seconds``; what the network does wrong is a value."""
    try:
        async with asyncio.timeout(seconds):
            response = await client.send(request, stream=True, auth=auth, follow_redirects=False)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > most_bytes:
                        # What was accepted stays accepted; whoever needs the whole answer sees that it is not one.
                        break
            finally:
                await response.aclose()
            return Reply(response.status_code, response.headers, bytes(body))
    except TimeoutError:
        return Unavailable(f"{who} did not answer within {seconds:g} s")
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        return Missing(f"{who}: this is no address that can be called", status=None)
    except httpx.LocalProtocolError:
        return Rejected(f"{who}: the request cannot be written as HTTP (a line break in a credential?)")
    except httpx.HTTPError as error:
        return Unavailable(f"{who}: {_network(error)}")


def _network(error: httpx.HTTPError) -> str:
    """A network error in words; only a failed connect says more than its kind, for it names nothing of the request."""
    words: dict[type[httpx.HTTPError], str] = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.ReadTimeout: "no answer in time",
        httpx.WriteTimeout: "the request could not be sent in time",
        httpx.PoolTimeout: "no connection was free in time",
        httpx.RemoteProtocolError: "the connection broke off or did not speak HTTP",
        httpx.ReadError: "the connection broke off",
        httpx.WriteError: "the connection broke off",
        httpx.DecodingError: "the answer was compressed in a broken way",
    }
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({str(error) or 'the network did not say why'})"
    return words.get(type(error), type(error).__name__)


class OpenClient(Protocol):
    """Opens a client: `open_client`, or in a test one that leads to an app in the same process."""

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
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """A client that follows no redirect, since credentials must not travel to where they were not meant for.

    Proxies and certificates of the environment count, except where private addresses are allowed: those are near.
    """
    return httpx.AsyncClient(
        headers={"user-agent": user_agent},
        timeout=httpx.Timeout(seconds),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        follow_redirects=False,
        trust_env=not allow_private,
        verify=_certificates(not allow_private),
        transport=transport,
    )


@lru_cache
def _certificates(trust_env: bool) -> ssl.SSLContext:
    """Read once: it takes a tenth of a second, and a process has a client per connection."""
    return httpx.create_ssl_context(trust_env=trust_env)


# ------------------------------------------------------------------------------------------------------------ patience


@dataclass(frozen=True, slots=True)
class Patience:
    """How often one call is made again at once, in this process; what still fails goes on the ladder (minutes)."""

    attempts: int = 3
    delay_seconds: float = 1.0
    timeout: float = 30.0
    longest_wait: float = 30.0
    """Whoever asks for more is asked again by the ladder, not here."""

    def wait(self, attempt: int, failure: Failure, random: randomness.Random) -> float | None:
        """Seconds to wait after the failed ``attempt`` (from 1) before the next; null: give up.

        Only 429, 408, 425, 5xx and the network are worth it. The delay doubles and is jittered between half and whole,
        so that many who failed together do not come back together.
        """
        if attempt >= self.attempts or not isinstance(failure, (Throttled, Unavailable)):
            return None
        asked = failure.retry_after or 0.0
        if asked > self.longest_wait:
            return None
        backoff = min(self.delay_seconds * 2.0 ** min(attempt - 1, 16), self.longest_wait)
        return max(asked, backoff * random.uniform(0.5, 1.0))

    async def call(
        self, once: Callable[[], Awaitable[Answer | Failure]], clock: Clock, random: randomness.Random
    ) -> Answer | Failure:
        """Calls ``once`` until it succeeds or patience ends; the last answer counts."""
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
