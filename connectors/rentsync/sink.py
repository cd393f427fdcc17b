"""The port `connectors.ports.ListingSink` for RentSync: one POST for each batch."""

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx

from connectors.http import Reply, exchange, open_client
from connectors.ports import Accepted, Clock, Failure
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import SHAPES, encode
from connectors.rentsync.settings import RentSyncSettings
from schemas.delivery import Batch

NAME: Final = "rentsync"
_TITLE: Final = "RentSync"
MAX_EXPLANATION: Final = 400
"""Characters of the receiver's error text that are kept."""


class RentSyncSink:
    """POSTs batches to RentSync. A retry sends the same bytes with the same ``Idempotency-Key``."""

    def __init__(
        self, settings: RentSyncSettings, clock: Clock, client: httpx.AsyncClient | None = None, name: str = NAME
    ) -> None:
        auth, shape = AUTHS[settings.auth], SHAPES[settings.shape]
        assert auth is not None, "the settings reject a scheme that is not available"
        assert shape is not None, "the settings reject a shape that is not available"
        self._name = name
        self._settings = settings
        self._auth = auth(settings)
        self._shape = shape
        self._clock = clock
        self._client = client or open_client(
            user_agent=settings.user_agent, seconds=settings.timeout, allow_private=settings.allow_private
        )

    @property
    def name(self) -> str:
        return self._name

    async def deliver(self, batch: Batch) -> Accepted | Failure:
        """POST the batch once; retries are decided by the caller."""
        request = self._client.build_request(
            "POST",
            self._settings.url,
            content=encode(batch, self._shape, self._settings.source),
            headers={
                "Content-Type": "application/json",
                "User-Agent": self._settings.user_agent,
                "X-Aigent-Sync-ID": batch.sync_id,
                "X-Aigent-Sync-Mode": batch.mode.value,
                "Idempotency-Key": _string(batch.batch_id),
            },
        )
        started = self._clock.monotonic()
        reply = await exchange(self._client, request, system=_TITLE, seconds=self._settings.timeout, auth=self._auth)
        if not isinstance(reply, Reply):
            return reply
        text = explanation(reply, hide=self._settings.api_key.get_secret_value())
        failure = reply.failure(_TITLE, self._clock.now(), text)
        return failure or Accepted(reply.status, self._clock.monotonic() - started)

    async def aclose(self) -> None:
        await self._client.aclose()


def _string(text: str) -> str:
    """Return a string in the syntax of RFC 8941, which the draft of ``Idempotency-Key`` requires."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def explanation(reply: Reply, hide: str = "") -> str:
    """Return the error text in a JSON body of a 4xx (RFC 9457 or similar), short and on one line; empty if none.

    The secret ``hide`` is masked, so that a receiver that repeats it does not bring it into logs and records.
    """
    if not 400 <= reply.status < 500:
        return ""
    try:
        problem = json.loads(reply.body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(problem, dict):
        return ""
    text = "; ".join(_texts(problem))
    if hide:
        text = text.replace(hide, "…")
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= MAX_EXPLANATION else printable[: MAX_EXPLANATION - 1] + "…"


def _texts(problem: dict[str, Any]) -> Iterator[str]:
    names = ("detail", "message", "error", "title")
    head = next((problem[name] for name in names if _is_text(problem.get(name))), None)
    if head is not None:
        yield head
    errors = problem.get("errors")
    for error in errors[:5] if isinstance(errors, list) else ():
        if _is_text(error):
            yield error
        elif isinstance(error, dict):
            parts = [error.get(name) for name in ("pointer", "field", "detail", "message")]
            yield " ".join(part for part in parts if isinstance(part, str) and part.strip())


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
