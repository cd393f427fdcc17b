"""The pages of the console over a real server: who may see them, what they show, and what their forms do."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from pydantic import SecretBytes, SecretStr

from schemas.commands import FieldProblem, SyncEntity, SyncStatus
from streams.web.api.app import build_api
from streams.web.api.tokens import SharedSecret, TokenVerifier
from streams.web.console.app import COOKIE, Console
from streams.web.console.sessions import BURST, LASTS, Sessions
from streams.web.ingress import build_ingress
from tests.streams.replays.parts import memory_replays
from tests.streams.web.api.parts import (
    SIGNING,
    Entry,
    MemoryIntegrations,
    MemorySyncs,
    MovableClock,
    bearer,
    memory_view,
    new,
)
from tests.streams.web.parts import MemoryPublisher, Readers, served

PASSWORD = "a password of people"
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Pages:
    """A running web role, and a browser's view of it."""

    client: httpx.AsyncClient
    service: MemoryIntegrations
    syncs: MemorySyncs
    clock: MovableClock

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.get(path, headers=HTML, **more)

    async def post(self, path: str, **fields: str) -> httpx.Response:
        return await self.client.post(path, data=fields, headers=HTML)

    async def sign_in(self, password: str = PASSWORD, back: str = "/") -> httpx.Response:
        return await self.post("/sign-in", password=password, next=back)

    async def press(self, path: str, action: str, **fields: str) -> httpx.Response:
        """Submit a form of a page, as a browser does: with the token that the page contains."""
        page = await self.get(path)
        assert f'action="{action}"' in page.text, page.text
        token = re.search(r'name="form_token" value="([^"]+)"', page.text)
        assert token
        return await self.post(action, form_token=token[1], **fields)

    def add(self, org: str = "default", name: str = "buildium", **more: Any) -> None:
        """Keep an enabled integration."""
        system = "rentsync" if name == "rentsync" else "buildium"
        state = {"enabled": True, "sync_state": "synced", **more}
        self.service.kept[org, name] = Entry(replace(new(org, name, system), **state))


@asynccontextmanager
async def pages(*, secure: bool = False) -> AsyncIterator[Pages]:
    clock = MovableClock()
    service, syncs = MemoryIntegrations(clock), MemorySyncs(clock)
    view, verifier = memory_view(), TokenVerifier(SharedSecret(SIGNING), clock)
    api = build_api(service, syncs, view, memory_replays(view, clock), verifier, version="1.2.3")
    sessions = Sessions(SecretStr(PASSWORD), SecretBytes(b"k" * 32), clock)
    console = Console(api, service, syncs, sessions, clock, secure=secure)
    async with (
        served(build_ingress(Readers(), MemoryPublisher(), clock, others=console)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield Pages(client, service, syncs, clock)


# ------------------------------------------------------------------------------------------------------------- sign-in


@pytest.mark.parametrize("path", ["/", "/integrations/default/buildium", "/api/buildium/sync?org=default"])
async def test_without_a_session_a_page_leads_to_the_sign_in_and_back(path: str) -> None:
    async with pages() as site:
        site.add()
        refused = await site.get(path)
        assert refused.status_code == 303
        form = await site.get(refused.headers["location"])
        assert form.status_code == 200
        assert "buildium" not in form.text.replace(path, "").replace("/api/buildium", "")
        back = re.search(r'name="next" value="([^"]+)"', form.text)
        assert back
        signed_in = await site.sign_in(back=back[1])
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, path)
        assert (await site.get(path)).status_code == 200


async def test_the_cookie_is_for_this_server_only() -> None:
    async with pages() as site:
        cookie = (await site.sign_in()).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Secure" not in cookie
    async with pages(secure=True) as site:
        assert "Secure" in (await site.sign_in()).headers["set-cookie"]


async def test_a_wrong_password_is_refused_and_guessing_is_slowed_down() -> None:
    async with pages() as site:
        for _ in range(BURST):
            refused = await site.sign_in("a guess")
            assert refused.status_code == 403
            assert "The password is wrong." in refused.text
            assert "set-cookie" not in refused.headers
        slowed = await site.sign_in()
        assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "6")
        site.clock.move(seconds=6)
        assert (await site.sign_in()).status_code == 303


@pytest.mark.parametrize(
    "back", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a\r\nx: y", "evil"]
)
async def test_a_sign_in_never_leads_to_another_server(back: str) -> None:
    async with pages() as site:
        assert (await site.sign_in(back=back)).headers["location"] == "/"
        assert (await site.get("/sign-in", params={"next": back})).headers["location"] == "/"


async def test_a_session_ends() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add()
        assert (await site.press("/", "/sign-out")).headers["location"] == "/sign-in"
        assert (await site.get("/")).status_code == 303
        await site.sign_in()
        site.clock.move(seconds=LASTS.total_seconds())
        assert (await site.get("/")).status_code == 303


# --------------------------------------------------------------------------------------------------------------- pages


async def test_programs_still_get_json_on_shared_paths() -> None:
    async with pages() as site:
        await site.sign_in()
        for accept in ("*/*", "application/json"):
            assert (await site.client.get("/", headers={"accept": accept})).json()["version"] == "1.2.3"
            listed = await site.client.get("/api/buildium/sync", headers={"accept": accept, **bearer()})
            assert listed.headers["content-type"] == "application/json"


async def test_a_session_opens_no_route_of_the_api() -> None:
    """Else another site could make a browser send a command with the cookie."""
    async with pages() as site:
        await site.sign_in()
        assert (await site.get("/api/integrations")).status_code == 401
        assert (await site.post("/api/buildium/sync")).status_code == 401


async def test_held_removals_are_shown_and_confirmed_with_a_button() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add(held_removals=12)
        site.add("oak")
        page = await site.get("/")
        assert "12 entities no longer" in page.text
        assert page.text.count("Confirm removals") == 1
        done = await site.press("/", "/integrations/default/buildium/confirm-removals")
        assert done.status_code == 303
        assert site.service.sweeps == [("default", "buildium", True)]
        after = await site.get(done.headers["location"])
        assert "buildium is read once more" in after.text


async def test_what_needs_attention_can_be_listed_alone() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add("oak")
        site.add("elm", hold="the credentials are refused", sync_state="held")
        page = await site.get("/?show=attention")
        assert "elm" in page.text
        assert "the credentials are refused" in page.text
        assert "oak" not in page.text
        assert "No org with integrations has “fir”" in (await site.get("/?org=fir")).text


async def test_an_integration_can_be_read_tested_disabled_and_enabled() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add(settings={"baseUrl": "https://x.example/?a=<b>"})
        path = "/integrations/default/buildium"
        assert "https://x.example/?a=&lt;b&gt;" in (await site.get(path)).text
        await site.press(path, f"{path}/sync")
        assert site.service.sweeps == [("default", "buildium", False)]
        await site.press(path, f"{path}/disable")
        assert not (await site.service.get("default", "buildium")).enabled
        assert f"{path}/sync" not in (await site.get(path)).text
        await site.press(path, f"{path}/enable")
        assert site.service.changes == [("default", "buildium", "console")] * 2


async def test_failed_syncs_are_listed_and_tried_again() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add()
        fields = (FieldProblem(pointer="/postalCode", detail="is no <code>"),)
        site.syncs.put("default", SyncEntity.PROPERTY, "p-1", SyncStatus.FAILED, detail="refused", fields=fields)
        site.syncs.put("default", SyncEntity.OWNER, "o-1", SyncStatus.SYNCED)
        assert "1 failed sync" in (await site.get("/")).text
        page = await site.get("/api/buildium/sync")
        assert page.headers["content-type"].startswith("text/html")
        assert "p-1" in page.text
        assert "is no &lt;code&gt;" in page.text
        assert "o-1" not in page.text
        done = await site.press("/api/buildium/sync", "/syncs/retry", org="default", entity="property", id="p-1")
        assert "It is tried again now." in (await site.get(done.headers["location"])).text


# ----------------------------------------------------------------------------------------------------------- bad input


async def test_a_form_without_the_token_of_the_session_changes_nothing() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add(held_removals=12)
        for fields in ({}, {"form_token": "guess"}, {"form_token": "ü"}):
            refused = await site.post("/integrations/default/buildium/confirm-removals", **fields)
            assert refused.status_code == 403
            assert "out of date" in refused.text
        assert site.service.sweeps == []


async def test_wrong_requests_get_a_page_with_the_reason() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add(enabled=False)
        path = "/integrations/default/buildium"
        token = re.search(r'name="form_token" value="([^"]+)"', (await site.get(path)).text)
        assert token
        expected = {
            "/integrations/default/none": (404, "The org default has no integration"),
            "/integrations/a b/none": (404, "There is no such page."),
            "/integrations/": (404, "There is no such page."),
            "/sign-out": (405, "does not take"),
        }
        for wrong, (status, words) in expected.items():
            answer = await site.get(wrong)
            assert (answer.status_code, words in answer.text) == (status, True), answer.text
            assert answer.headers["x-request-id"]
        conflict = await site.post(f"{path}/sync", form_token=token[1])
        assert (conflict.status_code, "is disabled: enable it first" in conflict.text) == (409, True)
        assert (await site.post(f"{path}/fly", form_token=token[1])).status_code == 404
        assert (await site.post("/syncs/retry", form_token=token[1], entity="cat")).status_code == 400
        assert (await site.client.post("/sign-in", content=b"x" * 20_000, headers=HTML)).status_code == 413
        assert (await site.client.post("/sign-in", content=b"\xff=1", headers=HTML)).status_code == 400
        site.service.away = True
        assert (await site.get("/")).status_code == 503


async def test_a_mistake_of_the_server_is_logged_and_shows_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pages() as site:
        await site.sign_in()
        site.service.broken = True
        answer = await site.get("/")
        assert answer.status_code == 500
        assert "a bug of the store" not in answer.text
        assert any("a page of the console failed" in record.message for record in caplog.records)


async def test_syncs_that_are_still_being_read_do_not_hide_the_integrations() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add()
        site.syncs.away = True
        assert (await site.get("/")).status_code == 200


async def test_pages_run_no_script_and_are_not_stored() -> None:
    async with pages() as site:
        await site.sign_in()
        site.add()
        for path in ("/", "/integrations/default/buildium", "/api/buildium/sync"):
            page = await site.get(path)
            assert "<script" not in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-store"
        style = await site.get("/console.css")
        assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
        assert PASSWORD not in "".join(site.client.cookies.values())
        assert COOKIE in site.client.cookies
