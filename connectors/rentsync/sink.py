"""The port `ListingSink` for RentSync: one POST for a batch."""

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
WHO: Final = "RentSync"
MOST_WORDS: Final = 400
"""Letters of the receiver's own explanation that are kept."""


class RentSyncSink:
    """POSTs batches to RentSync. A repeated batch is the same bytes under the same ``Idempotency-Key``."""

    def __init__(
        self, settings: RentSyncSettings, clock: Clock, client: httpx.AsyncClient | None = None, name: str = NAME
    ) -> None:
        auth, shape = AUTHS[settings.auth], SHAPES[settings.shape]
        assert auth is not None, "the settings refuse what is not built"
        assert shape is not None, "the settings refuse what is not built"
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
        """POST the batch once; whether it is worth another attempt is not decided here."""
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
        began = self._clock.monotonic()
        reply = await exchange(self._client, request, who=WHO, seconds=self._settings.timeout, auth=self._auth)
        if not isinstance(reply, Reply):
            return reply
        said = explanation(reply, hide=self._settings.api_key.get_secret_value())
        failure = reply.failure(WHO, self._clock.now(), said)
        return failure or Accepted(reply.status, self._clock.monotonic() - began)

    async def aclose(self) -> None:
        await self._client.aclose()


def _string(text: str) -> str:
    """A string of RFC 8941, as the draft of ``Idempotency-Key`` wants it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def explanation(reply: Reply, hide: str = "") -> str:
    """What a refusal says of itself, if it says it in JSON (RFC 9457 or alike): for a person, short, on one line.

    A receiver that repeats our credential (``hide``) back to us does not get it into our logs.
    """
    if not 400 <= reply.status < 500:
        return ""
    try:
        said = json.loads(reply.body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    words = "; ".join(_words(said))
    if hide:
        words = words.replace(hide, "…")
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    return printable if len(printable) <= MOST_WORDS else printable[: MOST_WORDS - 1] + "…"


def _words(said: dict[str, Any]) -> Iterator[str]:
    head = next((said[name] for name in ("detail", "message", "error", "title") if _is_text(said.get(name))), None)
    if head is not None:
        yield head
    errors = said.get("errors")
    for error in errors[:5] if isinstance(errors, list) else ():
        if _is_text(error):
            yield error
        elif isinstance(error, dict):
            parts = [error.get(name) for name in ("pointer", "field", "detail", "message")]
            yield " ".join(part for part in parts if isinstance(part, str) and part.strip())


def _is_text(given: object) -> bool:
    return isinstance(given, str) and bool(given.strip())
