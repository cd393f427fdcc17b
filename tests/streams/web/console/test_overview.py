"""The first page lists orgs by name, a page at a time, and finds what needs a person among all of them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from streams.directory.model import IntegrationState
from streams.web.console.overview import PAGE, Wanted, ago, needs_attention, read
from tests.streams.web.api.parts import new


class Many:
    """A hundred and more orgs with one integration each."""

    def __init__(self, held: Sequence[int] = ()) -> None:
        self.states = {
            f"org-{number:03}": replace(
                new(f"org-{number:03}", "buildium", "buildium"), enabled=True, held_removals=int(number in held)
            )
            for number in range(2 * PAGE + 7)
        }

    async def orgs(self) -> Sequence[str]:
        return list(self.states)

    async def list(self, org: str) -> Sequence[IntegrationState]:
        return [self.states[org]]


async def test_pages_cover_every_org_once() -> None:
    source, seen = Many(), []
    for page in (1, 2, 3):
        found = await read(source, Wanted(page=page))
        seen += [row.org for row in found.orgs]
        assert found.more is (page < 3)
        assert found.all_orgs == len(source.states)
    assert seen == list(source.states)
    assert (await read(source, Wanted(page=4))).orgs == ()


async def test_an_org_is_found_by_a_part_of_its_name() -> None:
    found = await read(Many(), Wanted(text="G-04"))
    assert [row.org for row in found.orgs] == [f"org-04{number}" for number in range(10)]


async def test_what_needs_a_person_is_found_on_any_page() -> None:
    found = await read(Many(held=[3, 99]), Wanted(attention=True))
    assert [row.org for row in found.orgs] == ["org-003", "org-099"]
    assert not found.more


def test_what_needs_a_person() -> None:
    well = replace(new("default", "buildium", "buildium"), enabled=True, sync_state="synced")
    assert not needs_attention(well)
    assert needs_attention(replace(well, hold="the credentials are refused"))
    assert needs_attention(replace(well, held_removals=12))
    assert needs_attention(replace(well, sync_state="failed"))
    assert not needs_attention(replace(well, enabled=False, hold="there are no credentials"))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, Wanted()),
        ({"org": " a ", "show": "attention", "page": "3"}, Wanted("a", attention=True, page=3)),
        ({"page": "0", "show": "x"}, Wanted()),
        ({"page": "-1"}, Wanted()),
        ({"page": "²"}, Wanted()),
        ({"page": "9" * 40}, Wanted()),
    ],
)
def test_a_query_that_makes_no_sense_asks_for_the_first_page(query: dict[str, str], wanted: Wanted) -> None:
    assert Wanted.of(query) == wanted


def test_a_link_to_another_page_keeps_what_was_asked_for() -> None:
    assert Wanted("a b", attention=True).link(2) == "/?org=a+b&show=attention&page=2"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (9, "just now"), (10, "10 s ago"), (60, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_how_long_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text
