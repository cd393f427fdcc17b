"""The webhooks of the stand-in: signed and sent, with the retries, duplicates and reordering of the real ones.

Buildium retries a webhook that was not answered with 2xx within 10 seconds after 1 minute, 10 minutes and an hour,
then drops it; after 20 consecutive failures it suspends the subscription (Buildium, Receiving Callbacks section).
"""

import asyncio
import random as randomness
from collections.abc import Iterable, Sequence
from typing import Final

import httpx
from pydantic import SecretStr

from connectors.buildium.signature import sign
from connectors.buildium.standin.entities import Event
from connectors.ports import Clock

SCHEDULE: Final = (60.0, 600.0, 3600.0)
PATIENCE_SECONDS: Final = 10.0
SUSPENDED_AFTER: Final = 20


class Webhooks:
    """A webhook subscription that sends an account's events to a URL.

    ``schedule`` holds the delays of the retries in seconds. ``copies`` sends each event several times and ``shuffled``
    sends events in random order, since Buildium guarantees neither a single delivery nor the order.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        clock: Clock,
        *,
        account: int = 123_456,
        schedule: Sequence[float] = SCHEDULE,
        copies: int = 1,
        shuffled: bool = False,
        random: randomness.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self.secret = SecretStr(secret)
        self.account = account
        self.schedule = tuple(schedule)
        self.copies = copies
        self.shuffled = shuffled
        self.delivered = 0
        self.dropped: list[bytes] = []
        self.failures_in_a_row = 0
        self.suspended = False
        self.statuses: list[int | None] = []
        """The response status of each attempt; null if there was no response in time."""
        self._clock = clock
        self._random = random or randomness.Random(1)  # noqa: S311 - the order of events, not a secret
        self._client = httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False, transport=transport)
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, events: Iterable[Event]) -> None:
        """Send events; return after the first attempt of each one. Retries run in the background."""
        bodies = [event.body(self.account) for event in events for _ in range(self.copies)]
        if self.shuffled:
            self._random.shuffle(bodies)
        for body in bodies:
            if not await self._attempt(body) and not self.suspended:
                task = asyncio.create_task(self._retry(body), name="stand-in-webhook")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until no retry is left."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def request(self, body: bytes) -> httpx.Request:
        """Return a webhook request, signed with the current time."""
        timestamp = str(int(self._clock.now().timestamp()))
        headers = {
            "content-type": "application/json",
            "buildium-webhook-timestamp": timestamp,
            "buildium-webhook-signature": sign(body, timestamp, self.secret),
        }
        return self._client.build_request("POST", self.url, content=body, headers=headers)

    async def _attempt(self, body: bytes) -> bool:
        if self.suspended:
            self.dropped.append(body)
            return False
        try:
            response = await self._client.send(self.request(body))
            status: int | None = response.status_code
        except httpx.HTTPError:
            status = None
        self.statuses.append(status)
        if status is not None and 200 <= status < 300:
            self.delivered += 1
            self.failures_in_a_row = 0
            return True
        self.failures_in_a_row += 1
        self.suspended = self.failures_in_a_row >= SUSPENDED_AFTER
        return False

    async def _retry(self, body: bytes) -> None:
        for delay in self.schedule:
            await self._clock.sleep(delay)
            if self.suspended or await self._attempt(body):
                break
        else:
            self.dropped.append(body)
