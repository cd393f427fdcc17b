"""What the ingress needs to make a webhook durable."""

from typing import Protocol

from schemas.pms import FetchRequest


class Publisher(Protocol):
    """Writes webhooks to Kafka."""

    async def publish(self, notice: FetchRequest) -> None:
        """Return once it is durable. Raise `streams.backends.ports.NotDurable`."""
        ...
