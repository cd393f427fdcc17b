"""Calls of one Buildium account: what reading and writing have in common.

Every call, retries included, uses the connection's API budget. Only reads are retried here: Buildium has no
idempotency key, so whether a write is made again is decided by what it may have left behind (`gateway`).
"""

import json
import logging
import random as randomness
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx

from connectors.budget import Budget
from connectors.http import Patience, Reply, exchange
from connectors.ports import Clock, Failure, Priority, Throttled, Unauthorized

_LOG: Final = logging.getLogger(__name__)

TITLE: Final = "Buildium"

THROTTLE_SECONDS: Final = 0.2
"""The pause of a connection after a 429 without ``Retry-After`` (Buildium, Rate Limiting section)."""

Query = Sequence[tuple[str, str]]


class Calls:
    """The HTTP client of a connection, with its API key, its budget and its patience."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base_url: str,
        clock: Clock,
        *,
        budget: Budget,
        patience: Patience,
        auth: httpx.Auth | None,
        random: randomness.Random,
    ) -> None:
        self.clock = clock
        self.budget = budget
        self._client = client
        self._base_url = base_url
        self._patience = patience
        self._auth = auth
        self._random = random

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(
        self, path: str, query: Query = (), priority: Priority = Priority.COMMAND, *, one: bool = False
    ) -> Reply | Failure:
        """Return a success; for a path of ``one`` entity also a 404 in the form of Buildium's errors."""

        async def once() -> Reply | Failure:
            return await self._call("GET", path, query, None, priority, kept=(404,) if one else ())

        return await self._patience.call(once, self.clock, self._random)

    async def write(
        self, method: str, path: str, body: Mapping[str, Any] | None, priority: Priority = Priority.COMMAND
    ) -> Reply | Failure:
        """Make a write once; return also a 404, 409 or 422 in the form of Buildium's errors.

        After `Unavailable` it may have been made.
        """
        return await self._call(method, path, (), body, priority, kept=(400, 404, 409, 422))

    async def _call(
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, Any] | None,
        priority: Priority,
        *,
        kept: Sequence[int],
    ) -> Reply | Failure:
        if self._auth is None:
            return Unauthorized("BUILDIUM_CLIENT_ID and BUILDIUM_CLIENT_SECRET are not set", status=None)
        async with self.budget.slot(priority):
            answer = await self._exchange(method, path, query, body, kept=kept)
        if isinstance(answer, Throttled):
            pause = max(answer.retry_after or 0.0, THROTTLE_SECONDS)
            self.budget.slow_down(min(pause, self._patience.longest_wait))
        return answer

    async def _exchange(
        self, method: str, path: str, query: Query, body: Mapping[str, Any] | None, *, kept: Sequence[int]
    ) -> Reply | Failure:
        request = self._client.build_request(method, self._base_url + path, params=tuple(query) or None, json=body)
        reply = await exchange(self._client, request, system=TITLE, seconds=self._patience.timeout, auth=self._auth)
        if not isinstance(reply, Reply):
            return reply
        request_id = reply.headers.get("x-amzn-requestid")
        _LOG.debug("Buildium %s %s %s: request id %s", reply.status, method, path, request_id)
        message = user_message(reply.body) if reply.status >= 400 else None
        if reply.status in kept and message:
            return reply
        return reply.failure(TITLE, self.clock.now(), message or "") or reply


def error_fields(body: bytes) -> tuple[tuple[str, str], ...]:
    """Return the fields that an error names, each with what is wrong, at most 50."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    details = error.get("Errors") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return ()
    return tuple((_text(one.get("Key")), _text(one.get("Value"))) for one in details[:50] if isinstance(one, dict))


def _text(value: object) -> str:
    return " ".join(str(value or "").split())[:300].encode("utf-8", "replace").decode()


def user_message(body: bytes) -> str | None:
    """Return the message of an error (``ApiErrorResponse``), at most 300 characters; null if it has another form."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(error, dict) or not isinstance(error.get("UserMessage"), str) or "Errors" not in error:
        return None
    details = error["Errors"] if isinstance(error["Errors"], list) else []
    fields = [f"{one.get('Key')}: {one.get('Value')}" for one in details[:10] if isinstance(one, dict)]
    message = " ".join(error["UserMessage"].split())
    text = f"{message} ({'; '.join(fields)})" if fields else message
    return text[:300].encode("utf-8", "replace").decode() or None
