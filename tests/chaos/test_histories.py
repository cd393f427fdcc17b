"""Schedules keep the laws, and each law that is broken in the code is found."""

import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from connectors import budget
from connectors.rentsync import sink
from streams.core import offer
from streams.core.availability import derive_availability
from streams.core.breaker import Breakers
from streams.directory.clients import Clients
from streams.runners import redeliver
from tests.chaos import histories
from tests.chaos.histories import History, Step, broken_laws, schedule, shrunk
from tests.world.memory import KEY


@pytest.mark.parametrize("seed", range(8))
async def test_a_schedule_keeps_the_laws(seed: int) -> None:
    assert await broken_laws(schedule(seed)) == []


def test_a_seed_is_always_the_same_schedule() -> None:
    assert schedule(7) == schedule(7)
    assert len({schedule(seed) for seed in range(50)}) == 50
    used = {step.name for seed in range(50) for step in schedule(seed)}
    assert used == set(histories.STEPS)


# ------------------------------------------------------------------------------------ each law, broken once in the code


def step(name: str, choice: int = 0, seconds: float = 3.0) -> Step:
    return Step(name, choice, seconds)


CHANGES = tuple(step("change_rent", number, 0.0) for number in range(30))


def choice_of(wanted: Callable[[random.Random], bool]) -> int:
    """Return a number that makes a step choose what is wanted."""
    return next(number for number in range(10_000) if wanted(random.Random(number)))


SENT = choice_of(lambda choose: bool(choose.random() and choose.choice([0, 1, 1, 1, 2, 3])))


async def test_too_many_calls_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget.Budget, "_wait", lambda *_: 0.0)
    assert await broken_laws(CHANGES) == ["Buildium was called more than 10 times in a second"]


async def test_an_answer_that_is_wrongly_taken_as_a_success_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "HEALED_WITHIN", 1200.0)
    monkeypatch.setattr(sink, "denial", lambda *_: None)
    found = await broken_laws([step("receiver_lies"), *CHANGES[:4], step("nothing")])
    assert found[0].startswith("a true change of [")


async def test_a_call_in_a_pause_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breakers, "_asked", lambda *_: None)
    monkeypatch.setattr(Breakers, "hold", lambda *_: None)
    pause = choice_of(lambda choose: choose.choice(["2", "15", "60", "200"]) == "200")
    steps = [step("receiver_asks_for_a_pause", pause), *CHANGES[:6], step("nothing", 0, 400.0)]
    assert any(one.startswith("the receiver was called") for one in await broken_laws(steps))


async def test_too_many_attempts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "DELAYS", ("1s", "2s", "3s", "4s", "5s"))
    monkeypatch.setattr(Breakers, "hold", lambda *_: None)
    many = choice_of(lambda choose: choose.choice([302, 400, 401, 403, 404, 409, 422, 500, 503, 503]) == 503
                     and choose.choice([1, 2, 5, 40]) == 40)  # fmt: skip
    found = await broken_laws([step("receiver_fails", many), *CHANGES[:2], step("nothing", 0, 70.0)])
    assert "there were 6 attempts of one cause" in found


async def test_an_older_version_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program would do that keeps a batch and sends it again."""

    async def send_an_old_batch(history: History, choose: random.Random) -> None:
        del choose
        first = next(one for one in history.world.rentsync.accepted if _has_rent_of_schedule(one.body))
        site = history.memory.sites["default"]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(site.rentsync.app)) as client:
            headers = {"x-api-key": KEY, "content-type": "application/json", "x-aigent-sync-mode": "delta"}
            headers |= {"idempotency-key": '"another"', "x-aigent-sync-id": first.sync_id}
            answer = await client.post(site.rentsync_url, content=json.dumps(first.body), headers=headers)
        assert answer.status_code == 200, answer.text

    monkeypatch.setitem(histories.STEPS, "send_an_old_batch", (0, send_an_old_batch))
    both = [Step("change_rent", SENT, 3.0), Step("change_rent", SENT, 3.0), step("send_an_old_batch")]
    assert any("went back to an older version" in one for one in await broken_laws(both))


def _has_rent_of_schedule(body: Any) -> bool:
    return any((unit.get("base_rent") or 0) >= histories.FIRST_RENT for unit in body["units"])


async def test_a_crash_of_the_program_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(histories.STEPS, "fail", (0, fail))
    assert await broken_laws([step("fail")]) == ["RuntimeError: a bug"]


async def test_a_schedule_that_breaks_a_law_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "HEALED_WITHIN", 1200.0)
    monkeypatch.setattr(sink, "denial", lambda *_: None)
    steps = [step("sweep"), step("receiver_lies"), *CHANGES[1:3], step("second_worker")]
    fewer, found = await shrunk(steps)
    assert found
    assert len(fewer) <= 3
    assert "receiver_lies" in {one.name for one in fewer}


async def test_an_attempt_before_its_due_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redeliver._Waiting, "early", lambda *_: 0.0)
    fails = choice_of(
        lambda choose: (
            choose.choice([302, 400, 401, 403, 404, 409, 422, 500, 503, 503]) in (500, 503)
            and choose.choice([1, 2, 5, 40]) == 1
        )
    )
    found = await broken_laws([step("receiver_fails", fails, 0.0), step("change_rent", SENT)])
    assert any(one.startswith("deliveries.due-") and one.endswith("ms early") for one in found), found


async def test_an_offer_that_a_lease_forbids_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are not looked at any more from some moment on."""
    derive = derive_availability

    async def forget_leases(history: History, choose: random.Random) -> None:
        del history, choose
        monkeypatch.setattr(
            offer, "derive_availability", lambda unit, leases, *more, **kw: derive(unit, (), *more, **kw)
        )

    monkeypatch.setitem(histories.STEPS, "forget_leases", (0, forget_leases))
    found = await broken_laws(
        [*(step("sign_lease", number, 0.0) for number in range(9)), step("forget_leases", 0, 5.0)]
    )
    assert any("is offered although it is leased" in one for one in found), found


async def test_what_comes_to_another_org_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """From some moment on, the batches of an org go to the receiver of the one beside it."""
    sink_of = Clients.sink

    async def mix_up(history: History, choose: random.Random) -> None:
        del choose
        (other,) = (org for org in history.memory.sites if org != "default")
        monkeypatch.setattr(Clients, "sink", lambda clients, _org, name: sink_of(clients, other, name))

    monkeypatch.setitem(histories.STEPS, "mix_up", (0, mix_up))
    found = await broken_laws([step("mix_up"), step("change_rent", SENT)])
    assert found[0].startswith("another org is affected"), found
