"""What the ingress needs of the log: to write a notice down, and to know that it is written."""

from typing import Protocol

from schemas.pms import FetchRequest


class NotDurable(Exception):  # noqa: N818 -- it says what is the case
    """The log did not confirm in time; whoever sent it has to send it again. It may still turn up."""


class Publisher(Protocol):
    """Writes notices to the log."""

    async def publish(self, notice: FetchRequest) -> None:
        """Return once it is durable. Raises `NotDurable`."""
        ...
