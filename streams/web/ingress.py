"""The webhook ingress, an ASGI app: verify a webhook, write it to Kafka, and answer once it is durable.

Plain ASGI without a router or middleware, because every webhook of every PMS passes through it. Requests for other
paths go to ``others``, the rest of the web role.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.ports import Clock, Refused, WebhookReader
from schemas.pms import FetchRequest
from streams.backends.deadlines import Deadlines
from streams.backends.ports import NotDurable
from streams.web.answers import Answer, RequestIds, problem, received

log = logging.getLogger("streams.web.ingress")

MAX_BODY_BYTES: Final = 256 * 1024
TIMEOUT: Final = 8.0
"""Seconds from the start of a request to its answer; Buildium gives up after ten."""
RETRY_AFTER: Final = (b"retry-after", b"5")
POST_ONLY: Final = (b"allow", b"POST")
CLOSE: Final = (b"connection", b"close")

PREFIX: Final = "/api/webhooks/"

Count = Callable[[str, str], None]
"""Counts a webhook by its system (``other`` if unknown) and its result."""

RESULT_OF_REFUSAL: Final[Mapping[int, str]] = {400: "malformed", 401: "unsigned", 413: "too_large", 503: "held"}


class Publisher(Protocol):
    """Writes webhooks to Kafka (`streams.backends.producer.WebhookPublisher`)."""

    async def publish(self, webhook: FetchRequest) -> None:
        """Return once it is durable. Raise `streams.backends.ports.NotDurable`."""
        ...


class WebhookDirectory(Protocol):
    """Knows the integrations that receive webhooks (`streams.directory.Directory`)."""

    @property
    def caught_up(self) -> bool:
        """Return whether all stored integrations are read."""
        ...

    @property
    def webhook_systems(self) -> frozenset[str]:
        """Return the names of the systems that send webhooks."""
        ...

    def readers(self, system: str, token: str | None, body: bytes) -> Sequence[WebhookReader]:
        """Return the readers to try, the most likely one first; none if there is no such URL.

        ``token`` is the last part of the path; null for the path that all integrations of a system share.
        """
        ...


class ClientDisconnected(Exception):  # noqa: N818
    """The client closed the connection before its request was complete, so that no answer is possible."""


class TooLarge(Exception):  # noqa: N818
    """The body exceeds the limit."""


@dataclass(slots=True)
class Ingress:
    """The ASGI app; create it with `build_ingress`."""

    directory: WebhookDirectory
    publisher: Publisher
    clock: Clock
    count: Count
    others: ASGIApp
    within: float = TIMEOUT
    deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        self.deadlines = Deadlines(self.within)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await self._webhook(scope["path"], scope, receive, send)
        else:
            await self.others(scope, receive, send)

    async def _webhook(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        system, _, token = path[len(PREFIX) :].removesuffix("/").partition("/")
        systems = self.directory.webhook_systems
        name = system if system in systems else "other"
        try:
            if not system or "/" in token:
                result, answer = "unknown", not_found(path)
            elif scope["method"] != "POST":
                result, answer = "refused", problem(405, "Send webhooks with POST.", (POST_ONLY,))
            elif system not in systems:
                known = ", ".join(sorted(systems)) or "none"
                detail = f"Unknown system {system[:50]!r}; webhooks are accepted from: {known}."
                result, answer = "unknown", problem(404, detail)
            elif not self.directory.caught_up:
                detail = "The stored integrations are still being read: send the webhook again."
                result, answer = "not_durable", problem(503, detail, (RETRY_AFTER,))
            else:
                result, answer = await self._accept(system, token or None, scope, receive)
        except ClientDisconnected:
            self.count(name, "too_slow")
            return
        except Exception as error:  # a bug must not become a closed connection without an answer
            log.exception("request %s: the ingress failed (%s)", _request_id(scope), type(error).__name__)
            result, answer = "error", problem(500, "Internal error of the server; send the webhook again later.")
        self.count(name, result)
        await answer.send(send)

    async def _accept(self, system: str, token: str | None, scope: Scope, receive: Receive) -> tuple[str, Answer]:
        """Read, verify and publish a webhook; return the result for the metrics, and the answer."""
        body_received = False
        try:
            with self.deadlines.one():
                body = await read_body(scope, receive)
                body_received = True
                readers = self.directory.readers(system, token, body)
                if not readers:
                    return "unknown", _no_integration(system, token)
                webhook = first_verified(readers, scope["headers"], body, self.clock.now())
                if isinstance(webhook, FetchRequest):
                    await self.publisher.publish(webhook)
                    return "ignored" if webhook.ignored else "accepted", received(webhook.event)
                return self._refused(scope, webhook)
        except TooLarge:
            return "too_large", problem(413, f"The body of a webhook must not exceed {MAX_BODY_BYTES // 1024} KiB.")
        except NotDurable as error:
            log.warning("request %s: webhook not confirmed by Kafka: %s", _request_id(scope), error)
        except TimeoutError:
            if not body_received:
                return "too_slow", problem(408, f"The body did not arrive within {self.within:g} s.", (CLOSE,))
            log.warning("request %s: webhook not confirmed by Kafka within %g s", _request_id(scope), self.within)
        detail = "Kafka did not confirm the event in time, so it may be lost: send it again."
        return "not_durable", problem(503, detail, (RETRY_AFTER,))

    def _refused(self, scope: Scope, refused: Refused) -> tuple[str, Answer]:
        log.info("request %s: refused with %d: %s", _request_id(scope), refused.status, refused.detail)
        headers = (RETRY_AFTER,) if refused.status == 503 else ()
        return RESULT_OF_REFUSAL.get(refused.status, "refused"), problem(refused.status, refused.detail, headers)


def first_verified(
    readers: Sequence[WebhookReader], headers: Sequence[tuple[bytes, bytes]], body: bytes, now: datetime
) -> FetchRequest | Refused:
    """Return the answer of the first reader whose secret verifies the webhook.

    If none does: that of a reader that could not try (503), so that the webhook is sent again; else the first refusal.
    ``readers`` must not be empty.
    """
    refused: list[Refused] = []
    for reader in readers:
        answer = reader.read(headers, body, now)
        if isinstance(answer, FetchRequest) or answer.status not in {401, 503}:
            return answer
        refused.append(answer)
    return next((one for one in refused if one.status == 503), refused[0])


def _no_integration(system: str, token: str | None) -> Answer:
    if token is None:
        return problem(404, f"No integration of {system} is configured.")
    return problem(404, f"{system} has no integration at this address.")


def _request_id(scope: Scope) -> str:
    return str(scope.get("request_id", b"?"), "ascii", "replace")


def not_found(path: str) -> Answer:
    """Return the 404 of an unknown path."""
    return problem(404, f"{path[:100]!r} does not exist.")


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """Return the body of a request.

    Raise `TooLarge` if its declared or actual length exceeds ``limit`` bytes, `ClientDisconnected` if it is incomplete.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and (len(value) > 19 or int(value) > limit):
            raise TooLarge
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise TooLarge
        return body
    chunks: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()
    raise ClientDisconnected


async def no_other_routes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every path with 404, close websockets, and acknowledge lifespan events."""
    if scope["type"] == "http":
        await not_found(scope["path"]).send(send)
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
    directory: WebhookDirectory,
    publisher: Publisher,
    clock: Clock,
    *,
    count: Count = _uncounted,
    others: ASGIApp = no_other_routes,
    within: float = TIMEOUT,
) -> ASGIApp:
    """Return the ingress in front of ``others``; every answer of both has an ``X-Request-ID``.

    ``within`` is the timeout of a webhook in seconds.
    """
    return RequestIds(Ingress(directory, publisher, clock, count, others, within))
