"""People use the console in a real browser, in front of a real cluster."""

import httpx
from playwright.async_api import Page, ViewportSize, expect

from connectors.buildium.standin import seed_portfolio
from streams.local.demo import ZONE
from tests.browser import browser
from tests.world import receiver_matches
from tests.world.cluster import CONSOLE_PASSWORD, ClusterWorld, Org, Process
from tests.world.commands import accepted, office, until_it_is

ORG = "maple"
NARROW: ViewportSize = {"width": 360, "height": 740}


async def sign_in(page: Page, url: str) -> None:
    await page.goto(url)
    await page.get_by_label("Password").fill(CONSOLE_PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


def not_found(org: Org) -> set[int]:
    """Return the units that were asked for, and that the account does not have."""
    parts = [call.path.rpartition("/units/") for call in org.buildium.calls if call.status == 404]
    return {int(unit) for _, found, unit in parts if found and unit.isdigit()}


async def fits(page: Page) -> bool:
    """Return whether nothing is wider than the window."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


async def test_a_person_confirms_held_removals(cluster_world: ClusterWorld) -> None:
    """So many units vanish at once that they stay at the receiver until a person presses the button."""
    world = cluster_world
    portfolio = seed_portfolio(world.clock, properties=2, units=24, timezone=ZONE)
    async with world.org(ORG, portfolio) as org, browser() as chromium:
        await (await org.enable()).aclose()
        await world.until(lambda: receiver_matches(org))
        gone = [unit for unit in sorted(portfolio.units)[2:] if unit in org.rentsync.state]
        for unit in gone:
            portfolio.remove_unit(unit)
        url = f"http://{world.webs[0].http}"
        page = await chromium.new_page()
        await sign_in(page, f"{url}/integrations/{ORG}/buildium")
        await page.get_by_role("button", name="Read the account now").click()
        await expect(page.get_by_role("status")).to_contain_text("A full read of buildium is asked for.")
        await world.until(lambda: set(gone) <= not_found(org))
        await page.get_by_role("button", name="Read the account now").click()  # it weighs the answers
        await page.goto(f"{url}/?org={ORG}&show=attention")

        async def held() -> bool:
            await page.reload()
            return await page.get_by_role("alert").count() == 1

        await world.eventually(held, "held removals on the page", every=0.5)
        await expect(page.get_by_role("alert")).to_contain_text("no longer exist")
        assert not any(org.rentsync.state[unit].status_name == "Removed" for unit in gone)
        await page.set_viewport_size(NARROW)
        assert await fits(page)

        await page.get_by_role("button", name="Confirm removals").click()
        await expect(page.get_by_role("status")).to_contain_text("what it no longer has is removed")
        await world.until(lambda: all(org.rentsync.state[unit].status_name == "Removed" for unit in gone))
        await page.goto(f"{url}/?org={ORG}&show=attention")
        await expect(page.get_by_text("Nothing needs attention.")).to_be_visible()


async def test_a_person_tries_a_failed_sync_again(cluster_world: ClusterWorld) -> None:
    world, url = cluster_world, f"http://{cluster_world.webs[0].http}"
    world.portfolio.bank_accounts.append(99)
    async with browser() as chromium:
        own_id, href = await accepted(world, "/api/properties", office("Console"))
        await until_it_is(world, href, "failed")
        world.portfolio.bank_accounts.remove(99)
        page = await chromium.new_page()
        await sign_in(page, f"{url}/api/buildium/sync")
        row = page.get_by_role("row").filter(has_text=own_id)
        await expect(row).to_contain_text("bank account")
        await page.set_viewport_size(NARROW)
        assert await fits(page)

        await row.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("status")).to_contain_text("It is tried again now.")
        await until_it_is(world, href, "synced")
        await page.goto(f"{url}/api/buildium/sync")
        await expect(page.get_by_text(own_id)).to_have_count(0)

        await page.get_by_role("button", name="Sign out").click()
        await page.goto(url)
        await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_a_process_may_run_one_part_of_the_web_role(cluster_world: ClusterWorld) -> None:
    """Then webhooks have a public address, and the pages do not."""
    world, html = cluster_world, {"accept": "text/html"}
    parts = {only: Process(only, ["http", "--only", only], world.env, world.folder) for only in ("ingress", "console")}
    try:
        async with httpx.AsyncClient() as client:
            answers = {}
            for only, process in parts.items():
                await world.ready(process)
                page = await client.get(f"http://{process.http}/", headers=html)
                webhook = await client.post(f"http://{process.http}/api/webhooks/buildium", content=b"{}")
                api = await client.get(f"http://{process.http}/api/integrations")
                answers[only] = page.status_code, webhook.status_code, api.status_code
                assert page.headers["x-request-id"]
    finally:
        for process in parts.values():
            process.kill()
    assert answers == {"ingress": (200, 401, 401), "console": (303, 404, 401)}
    assert all(b"Traceback" not in process.log.read_bytes() for process in parts.values())
