"""The answers of the ingress, as values: a status, a body, headers. Errors are problem details (RFC 9457)."""

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
    """One answer, whole."""

    status: int
    body: bytes
    headers: Headers = ()

    async def send(self, send: Send) -> None:
        length = (b"content-length", str(len(self.body)).encode())
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, length]})
        await send({"type": "http.response.body", "body": self.body})


def ok(said: Mapping[str, Any], status: int = 200) -> Answer:
    """Answer with a JSON object."""
    return Answer(status, json.dumps(said).encode(), (JSON,))


@lru_cache(maxsize=512)
def received(event: str) -> Answer:
    """Say that a webhook is durable; there are few events, so each is written once."""
    return ok({"received": True, "event": event}, 202)


def problem(
    status: int, detail: str, headers: Headers = (), *, errors: Iterable[tuple[str, str]] | None = None
) -> Answer:
    """Return a problem (RFC 9457); ``detail`` is for a person, ``errors`` pairs a JSON pointer with what is wrong."""
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

_SANE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")

_ONES_OWN: Final = secrets.token_hex(10).encode()
"""Of this process: an id has to be unique, nobody has to be unable to guess it."""
_COUNTER: Final = itertools.count(1)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Take over the id that came with the request, if it is fit to be logged and sent back; else make one."""
    for name, value in headers:
        if name == b"x-request-id" and _SANE.fullmatch(value):
            return value
    return b"%b%012x" % (_ONES_OWN, next(_COUNTER))


class RequestIds:
    """Gives every answer of an ASGI app its ``X-Request-ID``; the app finds it in ``scope["request_id"]``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = scope["request_id"] = request_id(scope["headers"])

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", given)]
            await send(message)

        await self._app(scope, receive, with_id)
