"""``rentstream resend``: what is chosen, what receivers get, and what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.directory.model import Conflict, NotFound
from streams.roles.resend import AT_ONCE, Target, resend
from streams.view.database import Database, parse_url
from tests.streams.roles.terminal import Terminal
from tests.streams.view.parts import View, delivery
from tests.world import receiver_matches
from tests.world.memory import MemoryWorld, Site

ORG = "acme"


@pytest.fixture
async def world() -> AsyncIterator[MemoryWorld]:
    """Yield a world with one org, whose receiver knows everything."""
    async with MemoryWorld(environment=False) as world, world.beside(ORG):
        await world.add_delivered_orgs(ORG)
        yield world


def all_of(site: Site) -> list[Target]:
    return [Target("rentsync", "buildium", number) for number in sorted(site.portfolio.properties)]


async def test_each_property_is_sent_once_more_although_nothing_changed(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    before, lines = len(site.rentsync.accepted), list[str]()
    await world.managed(resend(world.integrations, ORG, all_of(site), world.clock, lines.append))
    await world.rest()
    again = list(site.rentsync.accepted)[before:]

    sent = {unit["unit_id"] for batch in again for unit in batch.units}
    assert {batch.mode for batch in again} == {"snapshot"}
    assert sent == set(site.rentsync.state)
    assert len(again) == len({min(unit["unit_id"] for unit in batch.units) for batch in again})
    assert receiver_matches(site)
    count = len(site.portfolio.properties)
    assert lines == [f"asked for a snapshot of {count} properties; `rentstream status` shows what waits"]


async def test_one_property_is_sent_and_a_second_request_sends_it_again(world: MemoryWorld) -> None:
    site = world.sites[ORG]
    before, chosen = len(site.rentsync.accepted), all_of(site)[:1]
    for _ in range(2):
        await world.managed(resend(world.integrations, ORG, chosen, world.clock, lambda _: None))
        await world.rest()

    assert len(site.rentsync.accepted) == before + 2


async def test_many_are_asked_for_with_pauses_and_their_progress(world: MemoryWorld) -> None:
    chosen = all_of(world.sites[ORG])[:1] * (2 * AT_ONCE + 1)
    lines: list[str] = []
    began = world.clock.monotonic()
    await world.managed(resend(world.integrations, ORG, chosen, world.clock, lines.append))

    assert lines[:2] == ["  50 of 101 are asked for", "  100 of 101 are asked for"]
    assert world.clock.monotonic() - began >= 0.5


async def test_what_would_send_nothing_is_refused(world: MemoryWorld) -> None:
    one = Target("rentsync", "buildium", 1)
    for target, error in ((Target("buildium", "buildium", 1), Conflict), (Target("other", "buildium", 1), NotFound)):
        with pytest.raises(error):
            await world.managed(resend(world.integrations, ORG, [target], world.clock, lambda _: None))
    await world.disable(ORG, "rentsync")
    with pytest.raises(Conflict, match="enable it first"):
        await world.managed(resend(world.integrations, ORG, [one], world.clock, lambda _: None))


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, {"DATABASE_URL": f"sqlite:///{tmp_path}/view.db", "KAFKA_BOOTSTRAP_SERVERS": "x:1"})


def test_a_dry_run_shows_what_would_be_sent(terminal: Terminal, tmp_path: Path) -> None:
    database = Database(parse_url(f"sqlite:///{tmp_path}/view.db"))
    database.migrate()
    View(database).write(*(delivery(number) for number in range(1, 1203)))

    assert terminal.run("resend", "--dry-run") == "rentsync: a snapshot of 1,202 properties of buildium\n"
    assert terminal.run("resend", "--dry-run", "--property", "7") == "rentsync: a snapshot of 1 property of buildium\n"
    assert terminal.exit_code == 0
    for words in (("--receiver", "other"), ("--connection", "other"), ("--org", "other"), ("--property", "9999")):
        terminal.run("resend", "--dry-run", *words)
        assert terminal.exit_code == 1
        assert "nothing is sent again" in terminal.outputs[-1]


def test_without_a_view_nothing_is_chosen(terminal: Terminal) -> None:
    terminal.run("resend")
    assert terminal.exit_code == 1
    assert "there is no query view" in "".join(terminal.outputs)
