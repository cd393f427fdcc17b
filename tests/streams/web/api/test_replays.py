"""Replays over HTTP: plan, approval, pause, cancellation, and what is refused."""

import pytest

from schemas import topics
from tests.streams.web.api.parts import bearer, is_problem, pointers, site

READER, WRITER = bearer("replay:read"), bearer("replay:write")


async def test_a_plan_is_a_resource_that_can_be_read_and_ordered() -> None:
    async with site() as here:
        planned = await here.ask("POST", "/api/replays", {"reason": "rejected", "rate": 7}, headers=WRITER)
        where = planned.headers["location"]
        shown = await here.ask("GET", where, headers=READER)
        states = [planned.json()["state"]]
        for order in ("approve", "pause", "approve", "cancel", "cancel"):
            answer = await here.ask("POST", f"{where}/{order}", headers=WRITER)
            states.append(answer.json()["state"])
        listed = await here.ask("GET", "/api/replays", headers=READER)

    assert planned.status_code == 201
    assert shown.json() == planned.json()
    assert (shown.json()["topic"], shown.json()["rate"]) == (topics.DEAD_LETTERS.name, 7)
    assert shown.json()["filters"] == {"reason": "rejected"}
    assert shown.json()["plannedBy"] == "ann"
    assert shown.json()["planned"]["matched"] == 0
    assert set(shown.json()["report"]) == {"replayed", "gone", "unreadable", "refused", "left", "givenUpAgain"}
    assert states == ["planned", "running", "paused", "running", "cancelled", "cancelled"]
    assert [one["id"] for one in listed.json()["items"]] == [planned.json()["id"]]


async def test_a_cancelled_replay_takes_no_other_order() -> None:
    async with site() as here:
        where = (await here.ask("POST", "/api/replays", {}, headers=WRITER)).headers["location"]
        await here.ask("POST", f"{where}/cancel", headers=WRITER)
        answers = [await here.ask("POST", f"{where}/{order}", headers=WRITER) for order in ("approve", "pause")]

    assert all(is_problem(answer, 409) for answer in answers)
    assert "cancelled already" in answers[0].json()["detail"]


async def test_a_replay_that_is_only_planned_cannot_be_paused() -> None:
    async with site() as here:
        where = (await here.ask("POST", "/api/replays", {}, headers=WRITER)).headers["location"]
        assert is_problem(await here.ask("POST", f"{where}/pause", headers=WRITER), 409)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"topic": "pms.sweeps", "since": "2026-03-01T00:00:00Z"}, "/topic"),
        ({"topic": topics.WEBHOOKS.name}, "/since"),
        ({"topic": topics.WEBHOOKS.name, "since": "2026-03-01T00:00:00Z", "reason": "bug"}, "/reason"),
        ({"since": 1700000000}, "/since"),
        ({"since": "2026-03-01T00:00:00"}, "/since"),
        ({"id": "nope"}, "/id"),
        ({"rate": 0}, "/rate"),
        ({"rate": 1.5}, "/rate"),
        ({"fingerprint": "UPPER"}, "/fingerprint"),
        ({"reasons": "rejected"}, "/reasons"),
    ],
)
async def test_a_wrong_request_is_named(body: dict[str, object], pointer: str) -> None:
    async with site() as here:
        answer = await here.ask("POST", "/api/replays", body, headers=WRITER)
        listed = await here.ask("GET", "/api/replays", headers=READER)

    assert is_problem(answer, 422)
    assert pointer in pointers(answer)
    assert listed.json()["items"] == []


async def test_scopes_and_orgs_are_kept_apart() -> None:
    async with site() as here:
        where = (await here.ask("POST", "/api/replays", {}, headers=WRITER)).headers["location"]
        other = bearer("replay:read", "replay:write", org="maple")
        answers = {
            403: await here.ask("POST", "/api/replays", {}, headers=READER),
            404: await here.ask("GET", where, headers=other),
            401: await here.client.get("/api/replays"),
        }
        approved = await here.ask("POST", f"{where}/approve", headers=other)

    assert all(is_problem(answer, status) for status, answer in answers.items())
    assert is_problem(approved, 404)
