"""Tests of the clients of integrations: opening, replacement after a change, and closing after the last call."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from schemas import topics
from streams.backends.memory import MovableClock, settle
from streams.directory.clients import Clients
from streams.directory.directory import Directory
from streams.directory.entry import Problem, ProblemKind
from tests.streams.directory.records import pms, portal, put
from tests.streams.directory.stage import ring
from tests.streams.directory.systems import FakePms, FakePortal, Source


class Site:
    """A directory with its clients."""

    def __init__(self) -> None:
        self.pms, self.portal = FakePms(), FakePortal()
        self.directory = Directory({"pms": self.pms, "portal": self.portal}, {}, True, ring("k1"))
        self.clients = Clients(self.directory, MovableClock(), random.Random(1))
        put(self.directory, pms(), portal())

    async def problem(self, name: str, org: str = "acme", *, sink: bool = False) -> Problem:
        leased = self.clients.sink(org, name) if sink else self.clients.source(org, name)
        async with leased as found:
            assert isinstance(found, Problem)
            return found


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    await made.clients.aclose()


async def test_a_client_is_opened_on_first_use_and_kept(site: Site) -> None:
    assert site.pms.opened == []
    async with site.clients.source("acme", "main") as first:
        pass
    async with site.clients.source("acme", "main") as second, site.clients.sink("acme", "portal") as sink:
        assert second is first is site.pms.opened[0]
        assert sink is site.portal.opened[0]

    assert (len(site.pms.opened), len(site.portal.opened)) == (1, 1)
    assert (site.pms.opened[0].secret, site.portal.opened[0].secret) == ("the-secret-1234", "key")


async def test_every_integration_has_a_client_of_its_own(site: Site) -> None:
    put(site.directory, pms("zeta"), pms("acme", "second"))
    async with (
        site.clients.source("acme", "main") as one,
        site.clients.source("zeta", "main") as two,
        site.clients.source("acme", "second") as three,
    ):
        assert len({id(one), id(two), id(three)}) == 3


async def test_credentials_replaced_while_calls_are_in_flight(site: Site) -> None:
    async with AsyncExitStack() as calls:
        old = [await calls.enter_async_context(site.clients.source("acme", "main")) for _ in range(2)]
        put(site.directory, pms(secret="the-new-secret", version=2))
        async with site.clients.source("acme", "main") as new:
            await settle()
            assert old[0] is old[1] is site.pms.opened[0]
            assert new is site.pms.opened[1]
            assert [one.closed for one in site.pms.opened] == [0, 0]
        await settle()
        assert [one.closed for one in site.pms.opened] == [0, 0]
    await settle()

    assert [one.secret for one in site.pms.opened] == ["the-secret-1234", "the-new-secret"]
    assert [one.closed for one in site.pms.opened] == [1, 0]
    await site.clients.aclose()
    assert [one.closed for one in site.pms.opened] == [1, 1]


async def test_a_cancelled_call_releases_its_client(site: Site) -> None:
    async def call() -> None:
        async with site.clients.source("acme", "main"):
            await asyncio.get_running_loop().create_future()

    calling = asyncio.create_task(call())
    await settle()
    site.directory.apply(topics.INTEGRATIONS.name, b"acme/main", None)
    assert (await site.problem("main")).kind is ProblemKind.UNKNOWN
    assert site.pms.opened[0].closed == 0
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await settle()

    assert site.pms.opened[0].closed == 1


async def test_a_change_that_is_not_one_of_the_configuration_keeps_the_client(site: Site) -> None:
    async with site.clients.source("acme", "main") as before:
        put(site.directory, pms(version=2, properties_off=(7,)))
        async with site.clients.source("acme", "main") as after:
            assert after is before
    put(site.directory, pms(version=3, secret="another-secret"), pms(version=4))
    async with site.clients.source("acme", "main") as back:
        assert back is before


@pytest.mark.parametrize("gone", ["disabled", "deleted", "another system"])
async def test_a_client_of_a_changed_integration_is_closed_without_a_further_call(site: Site, gone: str) -> None:
    async with site.clients.source("acme", "main"):
        pass
    if gone == "disabled":
        put(site.directory, pms(enabled=False))
    else:
        site.directory.apply(topics.INTEGRATIONS.name, b"acme/main", None)
    if gone == "another system":
        put(site.directory, portal(name="main"))
    async with site.clients.sink("acme", "portal"):
        await settle()

    assert site.pms.opened[0].closed == 1


async def test_a_missing_client_has_a_reason(site: Site) -> None:
    put(site.directory, pms(name="off", enabled=False), pms(name="lost", key="k9"), pms(name="future", system="future"))
    problems = {name: await site.problem(name) for name in ("nothing", "off", "lost", "future", "portal")}
    sink = await site.problem("main", sink=True)

    assert {name: one.kind for name, one in problems.items()} == {
        "nothing": ProblemKind.UNKNOWN,
        "off": ProblemKind.DISABLED,
        "lost": ProblemKind.UNREADABLE_SECRET,
        "future": ProblemKind.UNKNOWN_SYSTEM,
        "portal": ProblemKind.WRONG_ROLE,
    }
    assert str(problems["off"]) == "acme/off is disabled: enable it to go on"
    assert sink.kind is ProblemKind.WRONG_ROLE
    assert (await site.problem("main", org="zeta")).kind is ProblemKind.UNKNOWN
    assert site.pms.opened == []


@pytest.mark.parametrize(("secret", "words"), [("unusable", "not shown: not usable"), ("explosive", "RuntimeError")])
async def test_a_connector_that_cannot_open_is_a_problem_without_the_secret(
    site: Site, secret: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(site.directory, pms(secret=secret))
    problem = await site.problem("main")

    assert problem.kind is ProblemKind.INVALID
    assert words in problem.detail
    assert "explosive" not in problem.detail + caplog.text


async def test_the_fullest_budget_of_a_system_is_shown(site: Site) -> None:
    put(site.directory, pms("zeta"))
    async with site.clients.source("acme", "main"), site.clients.source("zeta", "main"):
        site.pms.opened[0].used_ratio, site.pms.opened[1].used_ratio = 0.2, 0.7
        assert site.clients.used_ratios() == {"pms": 0.7}
    site.directory.apply(topics.INTEGRATIONS.name, b"zeta/main", None)

    assert site.clients.used_ratios() == {"pms": 0.2}


async def test_a_budget_is_taken_over_at_first_and_with_the_ownership(site: Site) -> None:
    """A former owner, or the client of the former configuration, may have used it up."""
    put(site.directory, pms("zeta"))
    for org in ("acme", "zeta"):
        async with site.clients.source(org, "main"):
            pass
    site.clients.taken_over(lambda org: org == "zeta")

    assert [one.taken for one in site.pms.opened] == [1, 2]


async def test_budgets_are_read_from_another_thread_and_change_nothing(site: Site) -> None:
    """The metrics page runs in a thread of its own, where no client can be closed."""
    async with site.clients.source("acme", "main"):
        pass
    site.directory.apply(topics.INTEGRATIONS.name, b"acme/main", None)
    assert await asyncio.to_thread(site.clients.used_ratios) == {}

    assert (await site.problem("main")).kind is ProblemKind.UNKNOWN
    await settle()
    assert [one.closed for one in site.pms.opened] == [1]


async def test_closing_waits_for_calls_in_flight_and_opens_no_client(site: Site) -> None:
    async with site.clients.source("acme", "main"):
        closing = asyncio.create_task(site.clients.aclose())
        await settle()
        assert not closing.done()
        assert (await site.problem("main")).kind is ProblemKind.CLOSED
    await closing

    assert [one.closed for one in site.pms.opened] == [1]


async def test_an_error_at_the_close_of_a_client_is_logged_only(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Source):
        async def aclose(self) -> None:
            raise OSError(self.secret)

    async with site.clients.source("acme", "main"):
        site.clients._sources["acme", "main"].client = Stubborn("the-secret-1234")
    await site.clients.aclose()

    assert "did not close (OSError)" in caplog.text
    assert "the-secret" not in caplog.text


def test_a_digest_cannot_be_used_to_test_guesses_of_a_secret() -> None:
    """The digest of the same configuration is different in every process."""
    one, two = Site(), Site()
    entry = one.directory.get("acme", "main")
    assert entry

    assert one.clients._digest(entry.configuration) == one.clients._digest(entry.configuration)
    assert one.clients._digest(entry.configuration) != two.clients._digest(entry.configuration)
