"""Tests of the flow that makes operations in the PMS."""

from datetime import timedelta
from typing import Any

import pytest

from connectors.ports import Halfway, Invalid, Pushed, Rejected, Throttled, Unauthorized, Unavailable, Undecided
from schemas import topics
from schemas.commands import (
    Command,
    CommandAction,
    FieldProblem,
    PostalAddress,
    PropertyBody,
    Push,
    PushOutcome,
    PushResult,
    SyncEntity,
)
from schemas.integrations import Integration
from streams.core.breaker import Breakers
from streams.core.flows import Headers
from streams.core.observer import NullObserver
from streams.core.retry import Dead, Held, Parked, Reason, ladder
from streams.flows.push_commands import PushCommands
from tests.streams.flows.parts import CONNECTION, DOWN, NOW, ORG, Site, account, consumed, dead, done, parked

HOME = PostalAddress(line1="1 Main St", postal_code="T2P", country="CA")


def push(attempt: int = 1, **more: Any) -> Push:
    body = PropertyBody(name="Annex", address=HOME, sub_type="Office")
    given: dict[str, Any] = {
        "org": ORG,
        "connection": CONNECTION,
        "operation": "op",
        "entity": SyncEntity.PROPERTY,
        "id": "p",
    }
    return Push(**{**given, "version": 3, "attempt": attempt, "since": NOW, "property": body} | more)


class Flow:
    """The flow with a connection."""

    def __init__(self, *integrations: Integration) -> None:
        self.site = Site(*(integrations or (account(),)))
        self.flow = PushCommands(self.site.clients, ladder("1m,2m"), self.site.clock, Breakers(NullObserver()))

    async def perform(self, *pushes: Push, headers: Headers = ()) -> Any:
        return await self.flow.perform([consumed(topics.PUSHES.name, one, headers) for one in pushes])


def outcome_of(effects: Any) -> PushOutcome:
    (emit,) = effects
    assert emit.topic is topics.SYNC_EVENTS
    assert isinstance(emit.record, PushOutcome)
    return emit.record


def again(answer: Parked) -> Command:
    assert answer.instead is not None
    assert answer.instead.topic is topics.COMMANDS
    assert isinstance(answer.instead.record, Command)
    return answer.instead.record


async def test_an_operation_is_made_and_its_outcome_goes_back() -> None:
    flow = Flow()
    outcome = outcome_of(done(await flow.perform(push())))
    assert (outcome.result, outcome.pms_id, outcome.version, outcome.operation) == (PushResult.DONE, 1, 3, "op")
    assert flow.site.account().pushes == [push()]


async def test_of_several_pushes_the_newest_is_made() -> None:
    flow = Flow()
    done(await flow.perform(push(), push(version=4)))
    assert [one.version for one in flow.site.account().pushes] == [4]


def test_the_key_is_the_entity_with_the_integration_first() -> None:
    key = Flow().flow.key(consumed(topics.PUSHES.name, push()))
    assert key == (ORG, CONNECTION, SyncEntity.PROPERTY, "p")


async def test_a_failure_waits_on_the_ladder_and_is_decided_again() -> None:
    flow = Flow()
    flow.site.account().answers = [DOWN]
    answer = parked(await flow.perform(push()))
    outcome = outcome_of(answer.effects)
    assert (outcome.result, outcome.code, outcome.detail) == (PushResult.WAITING, "unavailable", "down")
    assert outcome.due_at == NOW + timedelta(minutes=1)
    retry = again(answer)
    assert (retry.action, retry.version, retry.attempt, retry.held) == (CommandAction.RETRY, 3, 1, False)


async def test_after_the_last_rung_it_failed() -> None:
    flow = Flow()
    flow.site.account().answers = [DOWN]
    answer = dead(await flow.perform(push(attempt=3)))
    outcome = outcome_of(answer.effects)
    assert (outcome.result, outcome.code) == (PushResult.FAILED, "exhausted")


async def test_a_refusal_of_the_content_names_the_fields() -> None:
    flow = Flow()
    flow.site.account().answers = [Invalid("422", (("/name", "required"),))]
    outcome = outcome_of(done(await flow.perform(push())))
    assert (outcome.result, outcome.code, outcome.fields) == (
        PushResult.FAILED, "rejected", (FieldProblem(pointer="/name", detail="required"),),
    )  # fmt: skip


async def test_what_cannot_be_decided_is_a_conflict() -> None:
    flow = Flow()
    flow.site.account().answers = [Undecided("two of them")]
    outcome = outcome_of(done(await flow.perform(push())))
    assert (outcome.result, outcome.code, outcome.detail) == (PushResult.CONFLICT, "conflict", "two of them")


@pytest.mark.parametrize(
    ("why", "result"), [(Unavailable("down"), PushResult.WAITING), (Invalid("422"), PushResult.FAILED)]
)
async def test_what_is_there_halfway_is_not_forgotten(why: Any, result: PushResult) -> None:
    flow = Flow()
    flow.site.account().answers = [Halfway(9, why)]
    answer = await flow.perform(push())
    outcome = outcome_of(answer.effects)
    assert (outcome.result, outcome.pms_id) == (result, 9)


async def test_a_permission_that_is_missing_fails_this_operation_only() -> None:
    flow = Flow()
    flow.site.account().answers = [Unauthorized("403", 403)]
    answer = dead(await flow.perform(push()))
    assert outcome_of(answer.effects).code == "unauthorized"
    done(await flow.perform(push(id="other")))


async def test_wrong_credentials_hold_everything_of_the_connection() -> None:
    flow = Flow()
    flow.site.account().answers = [Unauthorized("401", 401)]
    answer = parked(await flow.perform(push()))
    assert (answer.reason, again(answer).held) == (Reason.UNAUTHORIZED, True)
    other = parked(await flow.perform(push(id="other")))
    assert other.reason is Reason.CIRCUIT_OPEN
    assert len(flow.site.account().pushes) == 1


async def test_a_pause_that_is_asked_for_uses_up_no_attempt() -> None:
    flow = Flow()
    flow.site.account().answers = [Throttled("429", 90.0)]
    answer = parked(await flow.perform(push(attempt=2)))
    retry = again(answer)
    assert (answer.reason, retry.held, retry.attempt) == (Reason.THROTTLED, True, 2)


@pytest.mark.parametrize("integration", [account(enabled=False), account(name="other")])
async def test_without_a_usable_connection_it_waits(integration: Integration) -> None:
    answer = parked(await Flow(integration).perform(push()))
    assert again(answer).held
    assert outcome_of(answer.effects).result is PushResult.WAITING


async def test_a_configuration_that_was_replaced_meanwhile_is_used_at_once() -> None:
    flow = Flow()
    before = flow.site.account()

    class Replaced(type(before)):  # type: ignore[misc]
        async def push(self, one: Push) -> Any:
            flow.site.put(account(secret="new", version=2))
            return Unauthorized("401", 401)

    flow.site.accounts[ORG] = Replaced(ORG)
    done(await flow.perform(push()))
    assert len(flow.site.account("new").pushes) == 1


async def test_the_runner_ends_a_push_with_an_outcome() -> None:
    flow = Flow().flow
    record = consumed(topics.PUSHES.name, push())
    failed = dead(flow.unfinished(record, Dead(Reason.BUG, "a bug")))
    assert outcome_of(failed.effects).result is PushResult.FAILED
    held = parked(flow.unfinished(record, Held(Reason.BUSY, "busy")))
    assert again(held).held


async def test_other_refusals_fail() -> None:
    flow = Flow()
    flow.site.account().answers = [Rejected("418", 418)]
    assert outcome_of(dead(await flow.perform(push())).effects).code == "rejected"
    assert outcome_of(done(await flow.perform(push()))).pms_id == Pushed(2).pms_id
