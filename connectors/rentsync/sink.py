"""The port `connectors.ports.ListingSink` for RentSync: one POST for each batch."""

from typing import Final

import httpx
from pydantic import SecretStr

from connectors.checks import secrets_of
from connectors.http import Reply, exchange, open_client, phrase
from connectors.ports import Accepted, Clock, Failure, Unavailable
from connectors.rentsync.answers import denial, explanation
from connectors.rentsync.auth import AUTHS
from connectors.rentsync.payload import encode
from connectors.rentsync.settings import RentSyncSettings
from schemas.delivery import Batch

NAME: Final = "rentsync"
_TITLE: Final = "RentSync"


class RentSyncSink:
    """POSTs batches to RentSync. A retry sends the same bytes with the same ``Idempotency-Key``."""

    def __init__(
        self, settings: RentSyncSettings, clock: Clock, client: httpx.AsyncClient | None = None, name: str = NAME
    ) -> None:
        self._name = name
        self._settings = settings
        self._auth = AUTHS[settings.auth](settings, clock)
        self._secrets = secrets_of(settings)
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
            content=encode(batch, self._settings.shape, self._settings.source, self._settings.fields_),
            headers={
                "Content-Type": "application/json",
                "User-Agent": self._settings.user_agent,
                "X-Aigent-Sync-ID": batch.sync_id,
                "X-Aigent-Sync-Mode": batch.mode.value,
                "Idempotency-Key": _string(batch.batch_id),
            },
        )
        started = self._clock.monotonic()
        reply = await exchange(
            self._client, request, system=_TITLE, seconds=self._settings.timeout, auth=self._auth, idempotent=True
        )
        if not isinstance(reply, Reply):
            return reply
        hide = (*self._secrets, SecretStr(getattr(self._auth, "token", "")))
        failure = reply.failure(_TITLE, self._clock.now(), explanation(reply, hide))
        if failure is None and (denied := denial(reply, hide)) is not None:
            failure = Unavailable(f"{_TITLE} answered {phrase(reply.status)}, but {denied}", reply.status)
        return failure or Accepted(reply.status, self._clock.monotonic() - started)

    async def aclose(self) -> None:
        await self._client.aclose()


def _string(text: str) -> str:
    """Return a string in the syntax of RFC 8941, which the draft of ``Idempotency-Key`` requires."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
