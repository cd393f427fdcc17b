"""The stand-in's webhooks: signed, posted, repeated, doubled and shuffled as the real ones are.

Buildium repeats a webhook that was not answered with 2xx within 10 seconds after 1 minute, 10 minutes and an hour,
then drops it; after 20 failures in a row it suspends the subscription (Buildium, Receiving Callbacks section).
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
    """One subscription: the sender of an account's events to a URL.

    ``schedule`` may be shorter than the real one; ``copies`` and ``shuffled`` make use of what Buildium does not
    promise: that an event comes once, and in order.
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
        """What every attempt was answered with; null: nothing in time."""
        self._clock = clock
        self._random = random or randomness.Random(1)  # noqa: S311 - the order of tests, not a secret
        self._client = httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False, transport=transport)
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, events: Iterable[Event]) -> None:
        """Sends them; returns when each was delivered or has failed once, repetitions go on in the background."""
        bodies = [event.body(self.account) for event in events for _ in range(self.copies)]
        if self.shuffled:
            self._random.shuffle(bodies)
        for body in bodies:
            if not await self._attempt(body) and not self.suspended:
                task = asyncio.create_task(self._repeat(body), name="stand-in-webhook")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Until nothing is left to repeat."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    def request(self, body: bytes) -> httpx.Request:
        """A webhook as it is posted now: the timestamp is that of the sending."""
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

    async def _repeat(self, body: bytes) -> None:
        for pause in self.schedule:
            await self._clock.sleep(pause)
            if self.suspended or await self._attempt(body):
                break
        else:
            self.dropped.append(body)
