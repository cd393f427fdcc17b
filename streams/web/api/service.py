"""What the API needs of the store of integrations, and of the commands."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from schemas.commands import OwnerBody, PropertyBody, SyncEntity, SyncOperation, SyncState
from schemas.integrations import CheckReport
from schemas.replay import ReplayWish
from streams.directory.model import IntegrationState, PutIntegration
from streams.replays.book import Replay
from streams.replays.planner import ReplayRequest
from streams.syncs.service import Receipt
from streams.view.queries import DeliveryFilter, Found, LetterFilter, RollFilter, WebhookFilter


class IntegrationService(Protocol):
    """Reads and changes the integrations of an org; ``by`` is the caller, for the audit trail.

    Every method may raise `streams.directory.model.IntegrationError`.
    """

    async def list(self, org: str) -> Sequence[IntegrationState]:
        """Return the integrations of the org, by name."""
        ...

    async def get(self, org: str, name: str) -> IntegrationState:
        """Raise `NotFound` if the org has none of that name."""
        ...

    async def put(self, org: str, name: str, body: PutIntegration, by: str) -> tuple[IntegrationState, bool]:
        """Store a configuration; return true if the integration is new. Raise `Invalid` or `Conflict`."""
        ...

    async def enable(self, org: str, name: str, by: str) -> IntegrationState: ...

    async def disable(self, org: str, name: str, by: str) -> IntegrationState: ...

    async def delete(self, org: str, name: str, by: str) -> None: ...

    async def check(self, org: str, name: str) -> CheckReport:
        """Test the connection with what is stored, whether it is enabled or not."""
        ...

    async def rotate_webhook_secret(
        self, org: str, name: str, secret: SecretStr | None, by: str
    ) -> tuple[IntegrationState, SecretStr | None]:
        """Add a webhook secret and keep the present ones; return the new one if it was generated."""
        ...

    async def remove_webhook_secret(self, org: str, name: str, since: datetime, by: str) -> IntegrationState:
        """Remove the webhook secret that was added at that time. Raise `NotFound` if there is none."""
        ...


class SyncService(Protocol):
    """Takes the commands of an org, and answers what became of them (`streams.syncs.service.Syncs`).

    Every method may raise `streams.directory.model.IntegrationError`.
    """

    async def submit(
        self,
        org: str,
        by: str,
        body: PropertyBody | OwnerBody,
        *,
        own_id: str | None = None,
        key: str | None = None,
        connection: str | None = None,
    ) -> Receipt:
        """Accept a command, durably. Raise `streams.syncs.service.KeyReused` as well."""
        ...

    async def retry(
        self, org: str, by: str, entity: SyncEntity, own_id: str | None = None
    ) -> Sequence[SyncOperation]: ...

    async def state(self, org: str, entity: SyncEntity, own_id: str) -> SyncState: ...

    def failed(self, org: str) -> Sequence[SyncState]: ...


class ReplayService(Protocol):
    """Plans and orders replays of an org (`streams.replays.service.Replays`).

    Every method may raise `streams.directory.model.IntegrationError`.
    """

    async def plan(self, request: ReplayRequest, by: str) -> Replay: ...

    async def order(self, org: str, replay: str, wish: ReplayWish, by: str) -> Replay: ...

    async def get(self, org: str, replay: str) -> Replay: ...

    def list(self, org: str) -> Sequence[Replay]: ...


class ViewService(Protocol):
    """Reads the query view (`streams.view.queries.Queries`); called in threads.

    Every method may raise `streams.view.queries.BadCursor` and `streams.view.database.ViewUnavailable`.
    """

    @property
    def local(self) -> bool:
        """Return whether a read involves no network."""
        ...

    def rent_roll(
        self, org: str, wanted: RollFilter, receivers: Sequence[str], limit: int, cursor: str | None = None
    ) -> Found: ...

    def deliveries(self, org: str, wanted: DeliveryFilter, limit: int, cursor: str | None = None) -> Found: ...

    def attempts(self, org: str, wanted: DeliveryFilter, limit: int, cursor: str | None = None) -> Found: ...

    def webhooks(self, org: str, wanted: WebhookFilter, limit: int, cursor: str | None = None) -> Found: ...

    def dead_letters(self, org: str, wanted: LetterFilter, limit: int, cursor: str | None = None) -> Found: ...

    def dead_letter_groups(self, org: str, wanted: LetterFilter, limit: int) -> Found: ...

    def given_up_again(self, org: str, replay: str) -> int: ...
