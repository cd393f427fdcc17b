"""HTTP answers as values: status, body and headers. Errors are problem details (RFC 9457)."""

import itertools
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = (b"content-type", b"application/json")
PROBLEM: Final = (b"content-type", b"application/problem+json")


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response."""

    status: int
    body: bytes
    headers: Headers = ()

    async def send(self, send: Send) -> None:
        """Send the response over ASGI."""
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body})


def ok(content: Mapping[str, Any], status: int = 200) -> Answer:
    """Return a JSON object as a successful answer."""
    return Answer(status, json.dumps(content).encode(), (JSON,))


@lru_cache(maxsize=512)
def received(event: str) -> Answer:
    """Return the 202 of a durable webhook; cached, because there are few event names."""
    return ok({"received": True, "event": event}, 202)


def problem(
    status: int, detail: str, headers: Headers = (), *, errors: Iterable[tuple[str, str]] | None = None
) -> Answer:
    """Return a problem document; ``detail`` is a sentence.

    ``errors`` pairs a JSON pointer with what is wrong there.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors is not None:
        content["errors"] = [{"pointer": pointer, "detail": wrong} for pointer, wrong in errors]
    return Answer(status, json.dumps(content).encode(), (PROBLEM, *headers))


# ----------------------------------------------------------------------------------------------------- X-Request-ID

_ACCEPTED_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")

_PROCESS: Final = secrets.token_hex(10).encode()
"""Random prefix of the ids of this process; ids must be unique, but need not be unguessable."""
_COUNTER: Final = itertools.count(1)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the ``X-Request-ID`` of the request if it is safe to log and to send back, else a new id."""
    for name, value in headers:
        if name == b"x-request-id" and _ACCEPTED_ID.fullmatch(value):
            return value
    return b"%b%012x" % (_PROCESS, next(_COUNTER))


class RequestIds:
    """ASGI middleware that adds an ``X-Request-ID`` to every response; the app finds it in ``scope["request_id"]``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = scope["request_id"] = request_id(scope["headers"])

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identifier)]
            await send(message)

        await self._app(scope, receive, with_id)
