"""Which integrations the first page of the console lists."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self
from urllib.parse import urlencode

from streams.directory.model import IntegrationState
from streams.directory.sync import SyncState

PAGE: Final = 50
"""Orgs of one page."""
MOST: Final = 200
"""Rows of a list that is not divided into pages."""
YIELD_EVERY: Final = 20
"""Orgs that are looked at before other requests get their turn."""


class Source(Protocol):
    """Lists integrations."""

    async def orgs(self) -> Sequence[str]: ...

    async def list(self, org: str) -> Sequence[IntegrationState]: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page shall show."""

    text: str = ""
    """Part of the name of an org."""
    attention: bool = False
    """Only integrations that need a person."""
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Self:
        """Return what a query string asks for; what it does not state well is left out."""
        page = query.get("page", "")
        return cls(
            text=query.get("org", "").strip()[:64],
            attention=query.get("show") == "attention",
            page=max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )

    def link(self, page: int) -> str:
        """Return the path of another page of the same list."""
        query = {"org": self.text, "show": "attention" if self.attention else "", "page": str(page)}
        return "/?" + urlencode({name: value for name, value in query.items() if value})


@dataclass(frozen=True, slots=True)
class OrgRows:
    """An org and its integrations."""

    org: str
    integrations: tuple[IntegrationState, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One page of the list."""

    orgs: tuple[OrgRows, ...]
    all_orgs: int
    """How many there are, whatever was asked for."""
    more: bool


def needs_attention(state: IntegrationState) -> bool:
    """Return whether an integration does not go on without a person."""
    return state.enabled and bool(state.hold or state.held_removals or state.sync_state == SyncState.FAILED)


async def read(source: Source, wanted: Wanted) -> Found:
    """Return a page of orgs, by name."""
    orgs = await source.orgs()
    chosen = [org for org in orgs if wanted.text.lower() in org.lower()]
    first, last = (wanted.page - 1) * PAGE, wanted.page * PAGE
    if not wanted.attention:
        rows = [OrgRows(org, tuple(await source.list(org))) for org in chosen[first:last]]
        return Found(tuple(rows), len(orgs), len(chosen) > last)
    rows = []
    for number, org in enumerate(chosen, start=1):
        needing = tuple(one for one in await source.list(org) if needs_attention(one))
        if needing:
            rows.append(OrgRows(org, needing))
        if number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
    return Found(tuple(rows[first:last]), len(orgs), len(rows) > last)


def ago(seconds: float) -> str:
    """Return how long ago something was, for people."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now" if seconds < 10 else f"{int(seconds)} s ago"
