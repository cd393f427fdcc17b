"""The ingress as an ASGI app: webhooks are verified, written down, and only then answered.

Written on ASGI itself, since every request of a PMS comes through here: no routing table, no middleware stack, one
function for each decision. What it does not know goes to ``others``, the rest of the web role.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.ports import Clock, Refused, WebhookReader
from schemas.pms import FetchRequest
from streams.backends.deadlines import Deadlines
from streams.backends.ports import NotDurable
from streams.web.answers import Answer, RequestIds, ok, problem, received
from streams.web.openapi import ROUTES, document
from streams.web.publisher import Publisher

log = logging.getLogger("connectors.ingress")

MOST_BYTES: Final = 256 * 1024
WITHIN: Final = 8.0
"""Seconds from the first byte of a request to its answer; Buildium gives up after ten."""
RETRY_AFTER: Final = (b"retry-after", b"5")
POST_ONLY: Final = (b"allow", b"POST")
GET_ONLY: Final = (b"allow", b"GET, HEAD")
CLOSE: Final = (b"connection", b"close")

PREFIX: Final = "/api/webhooks/"

Readers = Mapping[tuple[str, str | None], WebhookReader]
"""By system and connection; null stands for the system's first connection."""

Count = Callable[[str, str], None]
"""Counts a webhook: its system (``other`` if there is none of that name) and how it was answered."""

RESULT_OF_REFUSAL: Final[Mapping[int, str]] = {400: "malformed", 401: "unsigned", 413: "too_large"}


class Gone(Exception):  # noqa: N818
    """The client went away before its request was whole: there is nobody to answer."""


class TooLarge(Exception):  # noqa: N818
    """The body is over the limit."""


@dataclass(slots=True)
class Ingress:
    """The app. Use `build_ingress`."""

    readers: Readers
    publisher: Publisher
    clock: Clock
    count: Count
    others: ASGIApp
    openapi: Answer
    within: float = WITHIN
    systems: frozenset[str] = field(init=False)
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.within)
        self.systems = frozenset(system for system, _ in self.readers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.others(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith(PREFIX):
            await self._webhook(path, scope, receive, send)
        elif path == "/openapi.json":
            answer = self.openapi
            if scope["method"] not in {"GET", "HEAD"}:
                answer = problem(405, "The document can only be read: GET.", (GET_ONLY,))
            await answer.send(send)
        else:
            await self.others(scope, receive, send)

    async def _webhook(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        system, _, connection = path[len(PREFIX) :].removesuffix("/").partition("/")
        name = system if system in self.systems else "other"
        try:
            if not system or "/" in connection:
                result, answer = "unknown", nowhere(path)
            elif scope["method"] != "POST":
                result, answer = "refused", problem(405, "Webhooks are sent with POST.", (POST_ONLY,))
            else:
                reader = self.readers.get((system, connection or None))
                if reader is None:
                    result, answer = "unknown", self._stranger(system, connection)
                else:
                    result, answer = await self._take(reader, scope, receive)
        except Gone:
            self.count(name, "too_slow")
            return
        except Exception as error:  # a bug of ours must not look like silence to whoever sent it
            log.exception("request %s: the ingress failed (%s)", _shown(scope), type(error).__name__)
            result, answer = "error", problem(500, "The request met a mistake of ours; send it again later.")
        self.count(name, result)
        await answer.send(send)

    async def _take(self, reader: WebhookReader, scope: Scope, receive: Receive) -> tuple[str, Answer]:
        """Read, verify, write down: the result for the metrics, and the answer."""
        whole = False
        try:
            with self.deadlines.one():
                body = await read_body(scope, receive)
                whole = True
                notice = reader.read(scope["headers"], body, self.clock.now())
                if isinstance(notice, FetchRequest):
                    await self.publisher.publish(notice)
                    return "ignored" if notice.ignored else "accepted", received(notice.event)
                return self._refused(scope, notice)
        except TooLarge:
            return "too_large", problem(413, f"A webhook has at most {MOST_BYTES // 1024} KiB.")
        except NotDurable as error:
            log.warning("request %s: not durable: %s", _shown(scope), error)
        except TimeoutError:
            if not whole:
                return "too_slow", problem(408, f"The body did not arrive within {self.within:g} s.", (CLOSE,))
            log.warning("request %s: not durable within %g s", _shown(scope), self.within)
        detail = "The event could not be written down in time. Nothing of it is promised: send it again."
        return "not_durable", problem(503, detail, (RETRY_AFTER,))

    def _refused(self, scope: Scope, refused: Refused) -> tuple[str, Answer]:
        log.info("request %s: refused with %d: %s", _shown(scope), refused.status, refused.detail)
        return RESULT_OF_REFUSAL.get(refused.status, "refused"), problem(refused.status, refused.detail)

    def _stranger(self, system: str, connection: str) -> Answer:
        if system not in self.systems:
            known = ", ".join(sorted(self.systems)) or "no system yet"
            return problem(404, f"No system is called {system[:50]!r}; webhooks are taken from: {known}.")
        return problem(404, f"{system} has no connection that is called {connection[:50]!r}.")


def _shown(scope: Scope) -> str:
    return str(scope.get("request_id", b"?"), "ascii", "replace")


def nowhere(path: str) -> Answer:
    """Answer for a path where nothing is."""
    return problem(404, f"There is nothing at {path[:100]!r}.")


async def read_body(scope: Scope, receive: Receive, most: int = MOST_BYTES) -> bytes:
    """Read the body, but never more than ``most``, whatever its length claims to be. Raises `TooLarge` and `Gone`."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and (len(value) > 19 or int(value) > most):
            raise TooLarge
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise TooLarge
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    raise Gone


async def nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    """Be the rest of the web role where there is none: 404 in words; no websockets; the lifespan is acknowledged."""
    if scope["type"] == "http":
        await nowhere(scope["path"]).send(send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
    else:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


def _uncounted(system: str, result: str) -> None:
    del system, result


def build_ingress(
    readers: Readers,
    publisher: Publisher,
    clock: Clock,
    *,
    count: Count = _uncounted,
    others: ASGIApp = nothing_else,
    version: str = "0",
    within: float = WITHIN,
) -> ASGIApp:
    """Put the ingress together; every answer, those of ``others`` too, carries its ``X-Request-ID``."""
    openapi = ok(document(ROUTES, version))
    return RequestIds(Ingress(readers, publisher, clock, count, others, openapi, within))
