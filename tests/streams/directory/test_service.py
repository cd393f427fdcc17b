"""Tests of the service that changes integrations, from creation to deletion."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from connectors.ports import FieldError
from schemas import topics
from schemas.base import EntityKind
from schemas.codec import decode_as, encode
from schemas.integrations import (
    ChangeAction,
    CheckStatus,
    HoldReport,
    Integration,
    IntegrationChange,
    IntegrationMode,
    SyncProgress,
)
from schemas.partitions import partition_of
from streams.backends.memory import settle
from streams.backends.ports import BackendError
from streams.core.flows import ProducerRecord
from streams.directory.directory import PROGRESS, status_key
from streams.directory.entry import Problem
from streams.directory.model import Conflict, IntegrationState, Invalid, NotFound, PutIntegration, Unavailable
from streams.directory.service import READ_BACK_WITHIN, RandomIds
from streams.directory.writer import LogWriter
from tests.streams.directory.stage import PARTITIONS, Process, Stage, pms_body, portal_body, ring
from tests.streams.directory.systems import configuration

BY = "admin@example.com"
ENVIRONMENT = {
    "pms": configuration({"baseUrl": "https://pms.example/1"}, clientId="env-id", clientSecret="from-the-environment")
}


@pytest.fixture
def stage() -> Stage:
    return Stage()


def records(stage: Stage) -> list[Integration | None]:
    return [
        None if one.value is None else decode_as(Integration, one.value)
        for one in stage.broker.read(topics.INTEGRATIONS.name)
    ]


def history(stage: Stage) -> list[IntegrationChange]:
    return [decode_as(IntegrationChange, one.value) for one in stage.broker.read(topics.INTEGRATION_HISTORY.name)]


async def used_secret(process: Process, org: str = "acme", name: str = "main") -> str:
    async with process.clients.source(org, name) as source:
        return str(source) if isinstance(source, Problem) else process.pms.opened[-1].secret


async def refused(doing: Any) -> tuple[FieldError, ...]:
    with pytest.raises(Invalid) as raised:
        await doing
    return raised.value.errors


# -------------------------------------------------------------------------------------------------- created and changed


async def test_a_new_integration_is_stored_disabled_and_read_by_every_process(stage: Stage) -> None:
    async with stage.process() as one, stage.process(seed=1) as two:
        state, created = await one.service.put("acme", "main", pms_body(), BY)
        await settle()
        elsewhere = await two.service.get("acme", "main")
        (record,) = records(stage)
        (written,) = stage.broker.read(topics.INTEGRATIONS.name)

    assert created
    assert state == elsewhere
    assert (state.enabled, state.origin, state.version, state.sync_state) == (False, "stored", 1, "disabled")
    assert [(one.name, one.last4) for one in state.secrets] == [("clientId", None), ("clientSecret", "4711")]
    assert record
    assert (record.changed_by, record.created_at, record.mode) == (BY, stage.clock.now(), IntegrationMode.SANDBOX)
    assert (written.key, written.partition) == (b"acme/main", partition_of(b"acme", PARTITIONS))


async def test_a_process_that_starts_later_reads_everything(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        await one.service.put("acme", "portal", portal_body(), BY)
        before = await one.service.list("acme")
    async with stage.process() as two:
        assert await two.service.list("acme") == before
        assert [one.name for one in before] == ["main", "portal"]
        assert await two.service.list("zeta") == ()


async def test_settings_are_replaced_and_secrets_kept_unless_they_are_named(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(secrets={"webhookSecret": SecretStr("hook")}), BY)
        await stage.clock.advance(60)
        body = pms_body(None, settings={"baseUrl": "https://pms.example/2"}, secrets={"clientSecret": SecretStr("new")})
        state, created = await one.service.put("acme", "main", body, BY)
        removed, _ = await one.service.put(
            "acme", "main", pms_body(None, settings=body.settings, secrets={"webhookSecret": None, "gone": None}), BY
        )
        first, second = [entry for entry in records(stage)[:2] if entry]

    assert not created
    assert state.settings == {"baseUrl": "https://pms.example/2"}
    since = {secret.name: stage.clock.now() - secret.since for secret in state.secrets}
    assert since == {
        "clientId": timedelta(minutes=1),
        "clientSecret": timedelta(),
        "webhookSecret": timedelta(minutes=1),
    }
    assert first.secrets[0] == second.secrets[0]
    assert [secret.name for secret in removed.secrets] == ["clientId", "clientSecret"]
    assert [one.fields for one in history(stage)] == [
        (
            "/mode",
            "/secrets/clientId",
            "/secrets/clientSecret",
            "/secrets/webhookSecret",
            "/settings/baseUrl",
            "/settings/timezone",
        ),
        ("/secrets/clientSecret", "/settings/baseUrl", "/settings/timezone"),
        ("/secrets/webhookSecret",),
    ]


async def test_a_put_that_changes_nothing_writes_nothing(stage: Stage) -> None:
    async with stage.process() as one:
        before, _ = await one.service.put("acme", "main", pms_body(properties_off=(2, 1)), BY)
        after, created = await one.service.put("acme", "main", pms_body(properties_off=(1, 2)), BY)

    assert (after, created) == (before, False)
    assert len(records(stage)) == len(history(stage)) == 1


async def test_switches_that_are_not_named_stay(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(properties_default=False, properties_on=(3, 1)), BY)
        state, _ = await one.service.put("acme", "main", pms_body(properties_off=(9,)), BY)

    assert (state.properties_default, state.properties_on, state.properties_off) == (False, (1, 3), (9,))
    assert history(stage)[1].fields == ("/properties/off",)


async def test_every_error_is_reported_at_once(stage: Stage) -> None:
    async with stage.process() as one:
        body = pms_body(
            None,
            settings={"a/b": 1},
            secrets={"clientId": (SecretStr("a"), SecretStr("b")), "webhookSecret": SecretStr("\ud800")},
            properties_on=(1, 0),
            properties_off=(1,),
        )
        errors = await refused(one.service.put("acme", "main", body, BY))

    assert [(error.pointer, error.detail) for error in errors] == [
        ("/secrets/clientId", "only one value is possible"),
        ("/secrets/webhookSecret", "it contains invalid characters"),
        ("/properties/on", "ids of properties are positive whole numbers"),
        ("/properties/off", "also in /properties/on: 1"),
        ("/settings/a/b", "no such setting"),
        ("/settings/baseUrl", "it is required"),
        ("/secrets/clientSecret", "it is required"),
    ]
    assert records(stage) == []


@pytest.mark.parametrize(
    ("org", "name"), [("acme", "a/b"), ("acme", ""), ("acme", "-a"), ("acme", "A"), ("a/c", "main")]
)
async def test_names_that_cannot_be_keys_are_refused(stage: Stage, org: str, name: str) -> None:
    async with stage.process() as one:
        assert len(await refused(one.service.put(org, name, pms_body(), BY))) == 1


async def test_a_system_that_does_not_exist_is_refused_with_those_that_do(stage: Stage) -> None:
    async with stage.process() as one:
        body = PutIntegration("nothing", IntegrationMode.SANDBOX, {}, {})
        errors = await refused(one.service.put("acme", "main", body, BY))

    assert errors == (FieldError("/system", "no such system; there are: pms, portal"),)


async def test_an_integration_never_changes_its_system(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        await one.service.put("acme", "main", pms_body(), BY)
        for org, name in (("acme", "main"), ("default", "pms")):
            with pytest.raises(Conflict, match="needs another name"):
                await one.service.put(org, name, portal_body(), BY)


@pytest.mark.parametrize(("expected", "ok"), [(1, True), (2, False), (0, False)])
async def test_an_expected_version_has_to_match(stage: Stage, expected: int, ok: bool) -> None:
    async with stage.process() as one:
        with pytest.raises(Conflict, match="but there is none"):
            await one.service.put("acme", "main", pms_body(expected_version=1), BY)
        await one.service.put("acme", "main", pms_body(), BY)
        if ok:
            await one.service.put("acme", "main", pms_body("another", expected_version=expected), BY)
        else:
            with pytest.raises(Conflict, match="but it has version 1: read it again"):
                await one.service.put("acme", "main", pms_body("another", expected_version=expected), BY)


async def test_concurrent_changes_are_applied_one_after_the_other(stage: Stage) -> None:
    async with stage.process() as one:
        await asyncio.gather(*(one.service.put("acme", "main", pms_body(f"secret-{n}"), BY) for n in range(5)))
        state = await one.service.get("acme", "main")

    assert state.version == 5
    assert [change.version for change in history(stage)] == [1, 2, 3, 4, 5]


# ---------------------------------------------------------------------------- enabled, disabled, deleted, created again


async def test_a_person_ends_holds(stage: Stage) -> None:
    """Enabling an integration again ends its own; reading an account those of the org."""
    async with stage.process() as process:
        service = process.service
        for org in ("acme", "maple"):
            await service.put(org, "main", pms_body(), "a test")
            await service.enable(org, "main", "a test")

        async def held(org: str) -> bool:
            state = await service.get(org, "main")
            return state.hold is not None

        async def hold(org: str) -> None:
            version, now = (await service.get(org, "main")).version, stage.clock.now()
            report = HoldReport(
                org=org, name="main", version=version, reason="throttled", detail="429", since=now, until=now
            )
            key = topics.INTEGRATION_STATUS.key_of(report)
            await LogWriter(process.log.producer(), PARTITIONS).write(
                topics.INTEGRATION_STATUS.name, key, org, encode(report)
            )
            await settle()

        for end in (
            lambda: service.enable("acme", "main", "a test"),
            lambda: service.sweep("acme", "main"),
            lambda: service.refresh_property("acme", "main", 10),
        ):
            await hold("acme")
            await hold("maple")
            assert await held("acme")
            await end()
            assert not await held("acme")
            assert await held("maple")
        assert (await service.enable("acme", "main", "a test")).hold is None


async def test_an_integration_is_enabled_disabled_deleted_and_created_again(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        assert "is disabled" in await used_secret(one)
        enabled = await one.service.enable("acme", "main", BY)
        assert await used_secret(one) == "pms-secret-4711"
        again = await one.service.enable("acme", "main", BY)
        disabled = await one.service.disable("acme", "main", BY)
        assert "is disabled" in await used_secret(one)
        assert await one.service.disable("acme", "main", BY) == disabled
        await one.service.check("acme", "main")
        await one.service.delete("acme", "main", BY)
        with pytest.raises(NotFound, match="acme has no integration main"):
            await one.service.get("acme", "main")
        assert "no integration main" in await used_secret(one)
        await stage.clock.advance(1)
        recreated, created = await one.service.put("acme", "main", pms_body("another-secret"), BY)

    assert (enabled.enabled, again, disabled.enabled, created) == (True, enabled, False, True)
    assert (recreated.version, recreated.enabled, recreated.checks) == (1, False, None)
    assert recreated.webhook_path != enabled.webhook_path
    assert [change.action for change in history(stage)] == [
        ChangeAction.CREATED,
        ChangeAction.ENABLED,
        ChangeAction.DISABLED,
        ChangeAction.DELETED,
        ChangeAction.CREATED,
    ]
    assert [one and one.version for one in records(stage)] == [1, 2, 3, None, 1]


async def test_the_status_is_deleted_with_the_integration(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        await one.service.put("default", "pms", pms_body(), BY)
        await one.service.check("default", "pms")
        now = stage.clock.now()
        running = SyncProgress(
            org="default", name="pms", sweep="s", started_at=now, at=now, stage=EntityKind.UNIT, number=2, stages=4
        )
        key = status_key("default", "pms", PROGRESS)
        stage.broker.append(ProducerRecord(topics.INTEGRATION_STATUS.name, key, encode(running)), 0)
        await settle()
        await one.service.delete("default", "pms", BY)
        back = await one.service.get("default", "pms")

    assert (back.origin, back.checks, back.sync_state) == ("environment", None, "never_synced")


async def test_an_integration_with_a_problem_can_be_disabled_and_deleted_only(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        await one.service.enable("acme", "main", BY)
    async with stage.process(ring("k2")) as two:
        with pytest.raises(Conflict, match=r"main cannot be enabled: .* put the key with the id k1 back"):
            await two.service.enable("acme", "main", BY)
        assert not (await two.service.disable("acme", "main", BY)).enabled
        await two.service.delete("acme", "main", BY)
        assert await two.service.list("acme") == ()


@pytest.mark.parametrize("request_", ["enable", "disable", "delete"])
async def test_a_missing_integration_is_not_found(stage: Stage, request_: str) -> None:
    async with stage.process() as one:
        with pytest.raises(NotFound):
            await getattr(one.service, request_)("acme", "main", BY)


# ----------------------------------------------------------------------------------------------- stored and environment


@pytest.mark.parametrize("request_", ["enable", "disable", "delete"])
async def test_an_integration_of_the_environment_cannot_be_changed(stage: Stage, request_: str) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        with pytest.raises(Conflict, match=r"described by the environment.*BUILDIUM_SYNC_ENABLED.*store it with PUT"):
            await getattr(one.service, request_)("default", "pms", BY)


async def test_a_stored_integration_overrides_the_environment_until_it_is_deleted(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        assert await used_secret(one, "default", "pms") == "from-the-environment"
        state, created = await one.service.put("default", "pms", pms_body(), BY)
        assert "is disabled" in await used_secret(one, "default", "pms")
        await one.service.enable("default", "pms", BY)
        assert await used_secret(one, "default", "pms") == "pms-secret-4711"
        await one.service.delete("default", "pms", BY)
        assert await used_secret(one, "default", "pms") == "from-the-environment"

    assert (created, state.origin, state.enabled) == (True, "stored", False)


async def test_a_put_over_the_environment_keeps_the_secrets_that_it_does_not_name(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        body = pms_body(None, secrets={"clientSecret": SecretStr("a-newer-secret")}, expected_version=0)
        state, _ = await one.service.put("default", "pms", body, BY)
        entry = one.directory.get("default", "pms")

    assert [secret.name for secret in state.secrets] == ["clientId", "clientSecret"]
    assert entry
    assert entry.configuration.secrets["clientId"][0].get_secret_value() == "env-id"
    assert "/secrets/clientId" in history(stage)[0].fields


# -------------------------------------------------------------------------------------------------------------- secrets


async def test_credentials_are_replaced_in_every_process_while_calls_are_in_flight(stage: Stage) -> None:
    async with stage.process() as one, stage.process(seed=1) as two:
        await one.service.put("acme", "main", pms_body(), BY)
        await one.service.enable("acme", "main", BY)
        await settle()
        async with two.clients.source("acme", "main") as before:
            await one.service.put("acme", "main", pms_body("the-second-secret"), BY)
            await settle()
            assert await used_secret(two) == "the-second-secret"
            assert before is two.pms.opened[0]
            assert two.pms.opened[0].closed == 0
        await settle()
        assert [source.closed for source in two.pms.opened] == [1, 0]


async def test_a_lost_key_affects_only_its_secrets_and_new_secrets_fix_it(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        await one.service.enable("acme", "main", BY)
    async with stage.process(ring("k2"), seed=1) as two:
        await two.service.put("acme", "second", pms_body(), BY)
        await two.service.enable("acme", "second", BY)
        assert "put the key with the id k1 back" in await used_secret(two)
        assert await used_secret(two, name="second") == "pms-secret-4711"
        errors = await refused(two.service.put("acme", "main", pms_body(None), BY))
        assert [(error.pointer, "cannot be decrypted" in error.detail) for error in errors] == [
            ("/secrets/clientId", True),
            ("/secrets/clientSecret", True),
        ]
        state, _ = await two.service.put("acme", "main", pms_body(), BY)
        assert (state.hold, state.enabled) == (None, True)
        assert await used_secret(two) == "pms-secret-4711"


async def test_a_webhook_secret_is_rotated_without_a_gap(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(secrets={"webhookSecret": SecretStr("hook-1")}), BY)
        given, none = await one.service.rotate_webhook_secret("acme", "main", SecretStr("hook-2"), BY)
        made, secret = await one.service.rotate_webhook_secret("acme", "main", None, BY)
        entry = one.directory.get("acme", "main")
        assert entry
        assert secret
        both = [value.get_secret_value() for value in entry.configuration.secrets["webhookSecret"]]
        hooks = [state for state in made.secrets if state.name == "webhookSecret"]
        left = await one.service.remove_webhook_secret("acme", "main", hooks[-1].since, BY)
        with pytest.raises(NotFound, match="no webhookSecret since"):
            await one.service.remove_webhook_secret("acme", "main", hooks[-1].since, BY)
        await one.service.put("acme", "portal", portal_body(), BY)
        with pytest.raises(Conflict, match="portal takes no webhooks"):
            await one.service.rotate_webhook_secret("acme", "portal", None, BY)

    assert none is None
    assert both == [secret.get_secret_value(), "hook-2", "hook-1"]
    assert len({hook.since for hook in hooks}) == 3
    assert [state.since for state in left.secrets if state.name == "webhookSecret"] == [
        hook.since for hook in hooks[:2]
    ]
    assert given.version == 2
    assert [change.action for change in history(stage)][1:4] == [ChangeAction.ROTATED] * 3


@pytest.mark.parametrize("secret", ["", "  ", "\ud800"])
async def test_a_blank_webhook_secret_is_refused(stage: Stage, secret: str) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        errors = await refused(one.service.rotate_webhook_secret("acme", "main", SecretStr(secret), BY))

    assert [error.pointer for error in errors] == ["/secret"]


async def test_several_webhook_secrets_can_be_put_newest_first(stage: Stage) -> None:
    async with stage.process() as one:
        several = (SecretStr("hook-2"), SecretStr("hook-1"))
        state, _ = await one.service.put("acme", "main", pms_body(secrets={"webhookSecret": several}), BY)
        entry = one.directory.get("acme", "main")
        assert entry
        assert entry.configuration.secrets["webhookSecret"] == several
        again, _ = await one.service.put("acme", "main", pms_body(secrets={"webhookSecret": several}), BY)
        assert again == state


async def test_reencryption_brings_everything_readable_under_the_first_key(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        await one.service.put("acme", "main", pms_body(secrets={"webhookSecret": SecretStr("hook")}), BY)
        await one.service.put("zeta", "portal", portal_body(), BY)
        before = await one.service.get("acme", "main")
    async with stage.process(ring("k9"), seed=1) as other:
        await other.service.put("acme", "foreign", pms_body(), BY)
    async with stage.process(ring("k2", "k1"), environment=ENVIRONMENT, seed=2) as two:
        assert await two.service.reencrypt(BY) == 2
        assert await two.service.reencrypt(BY) == 0
    async with stage.process(ring("k2")) as three:
        after = await three.service.get("acme", "main")
        foreign = await three.service.get("acme", "foreign")

    assert (after.secrets, after.hold, after.version) == (before.secrets, None, 2)
    assert foreign.hold
    assert history(stage)[-1].action is ChangeAction.REENCRYPTED


# ---------------------------------------------------------------------------------------------------------------- check


async def test_a_check_tests_the_stored_integration_and_every_process_reads_its_outcome(stage: Stage) -> None:
    async with stage.process() as one, stage.process() as two:
        await one.service.put("acme", "main", pms_body(), BY)
        report = await one.service.check("acme", "main")
        await settle()
        elsewhere = await two.service.get("acme", "main")
        (written,) = stage.broker.read(topics.INTEGRATION_STATUS.name)

    assert (report.passed, report.account, report.version, report.at) == (True, 77, 1, stage.clock.now())
    assert (elsewhere.checks, elsewhere.access) == (report, report.access)
    assert (written.key, written.partition) == (b"acme/main/check", partition_of(b"acme", PARTITIONS))


async def test_a_check_of_the_environment_is_possible_too(stage: Stage) -> None:
    async with stage.process(environment=ENVIRONMENT) as one:
        report = await one.service.check("default", "pms")
        with pytest.raises(NotFound):
            await one.service.check("default", "portal")

    assert (report.version, report.account) == (0, 1)


@pytest.mark.parametrize(
    ("secret", "name", "detail"),
    [("wrong", "credentials", "as they are"), ("broken", "finished", "The test failed by itself (RuntimeError).")],
)
async def test_a_check_that_fails_is_a_report(stage: Stage, secret: str, name: str, detail: str) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(secret), BY)
        report = await one.service.check("acme", "main")

    assert not report.passed
    assert [(check.name, check.status, check.detail) for check in report.checks] == [(name, CheckStatus.FAILED, detail)]


async def test_a_check_that_hangs_is_cancelled(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body("endless"), BY)
        checking = asyncio.create_task(one.service.check("acme", "main"))
        await stage.clock.advance(15)
        report = await checking

    assert [(check.detail, check.milliseconds) for check in report.checks] == [
        ("The test did not end within 15 s.", 15_000)
    ]


async def test_a_check_of_an_unusable_integration_has_the_reason(stage: Stage) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
    async with stage.process(ring("k2")) as two:
        report = await two.service.check("acme", "main")
    async with stage.process(without="pms") as three:
        unknown = await three.service.check("acme", "main")

    assert "put the key with the id k1 back" in report.checks[0].detail
    assert "has no system 'pms'" in unknown.checks[0].detail


# -------------------------------------------------------------------------------------------------------- Kafka is away


async def test_no_request_is_answered_before_everything_is_read(stage: Stage) -> None:
    async with stage.process() as one:
        one.directory.caught_up = False
        for doing in (
            one.service.list("acme"),
            one.service.get("acme", "main"),
            one.service.put("acme", "main", pms_body(), BY),
            one.service.enable("acme", "main", BY),
            one.service.delete("acme", "main", BY),
            one.service.check("acme", "main"),
            one.service.reencrypt(BY),
        ):
            with pytest.raises(Unavailable, match="not all read"):
                await doing


async def test_a_change_without_an_acknowledgement_fails(stage: Stage) -> None:
    async with stage.process() as one:
        stage.broker.refuses = lambda _record: BackendError("no broker")
        with pytest.raises(Unavailable, match=r"Kafka does not confirm the change \(no broker\)"):
            await one.service.put("acme", "main", pms_body(), BY)
        assert await one.service.list("acme") == ()


async def test_a_change_that_is_not_read_back_fails(stage: Stage) -> None:
    async with stage.process() as one:
        await one.follower.stop()
        putting = asyncio.create_task(one.service.put("acme", "main", pms_body(), BY))
        await stage.clock.advance(READ_BACK_WITHIN)
        with pytest.raises(Unavailable, match="written, but it was not read back"):
            await putting

    assert len(records(stage)) == 1


async def test_an_outcome_that_cannot_be_stored_is_returned(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        stage.broker.refuses = lambda record: (
            BackendError("no broker") if record.topic == topics.INTEGRATION_STATUS.name else None
        )
        assert (await one.service.check("acme", "main")).passed
        assert (await one.service.get("acme", "main")).checks is None
    assert "is not stored" in caplog.text


async def test_a_status_that_cannot_be_deleted_does_not_stop_a_deletion(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage.process() as one:
        await one.service.put("acme", "main", pms_body(), BY)
        await one.service.check("acme", "main")
        stage.broker.refuses = lambda record: (
            BackendError("no broker") if record.topic == topics.INTEGRATION_STATUS.name else None
        )
        await one.service.delete("acme", "main", BY)
        assert await one.service.list("acme") == ()
    assert "is not deleted" in caplog.text


# ----------------------------------------------------------------------------------------------------------- the canary


async def test_no_secret_is_in_any_record_answer_error_or_line_of_the_log(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary, shown = "canary-4f1d9a7c", []
    environment = {"portal": configuration({"url": "https://portal.example"}, apiKey=canary + "-env")}

    async def note(doing: Any) -> None:
        try:
            shown.append(repr(await doing))
        except (Conflict, Invalid, NotFound) as error:
            shown.append(repr(error) + str(error))

    body = pms_body(canary + "-a-secret", secrets={"webhookSecret": SecretStr(canary + "-hook")})
    async with stage.process(environment=environment) as one:
        await note(one.service.put("acme", "main", body, BY))
        await note(one.service.put("acme", "main", portal_body(canary), BY))
        await note(one.service.put("acme", "bad", pms_body(canary, secrets={"what": SecretStr(canary)}), BY))
        await note(one.service.put("acme", "portal", portal_body(canary), BY))
        await note(one.service.put("default", "portal", PutIntegration("portal", body.mode, {"url": "x"}, {}), BY))
        await note(one.service.enable("acme", "main", BY))
        await note(one.service.rotate_webhook_secret("acme", "main", SecretStr(canary + "-new"), BY))
        await note(one.service.check("acme", "main"))
        await note(one.service.list("acme"))
        async with one.clients.source("acme", "main"):
            pass
        await note(one.service.delete("acme", "main", BY))
        shown += [repr(vars(one.service)), repr(one.directory.integrations()), repr(body), repr(one.clients)]
    async with stage.process(ring("k2")) as two:
        await note(two.service.list("acme"))
        await note(two.service.check("acme", "portal"))
    written = [
        bytes(part or b"")
        for topic in stage.broker.topics()
        for one in stage.broker.read(topic)
        for part in (one.key, one.value)
    ]

    assert len(stage.broker.topics()) == 3
    assert len(written) > 20
    assert not [one for one in written if b"canary" in one]
    assert not [one for one in shown if "canary" in one]
    assert "canary" not in caplog.text


def test_random_ids_are_never_the_same() -> None:
    ids = RandomIds()

    assert len({ids.token() for _ in range(50)}) == 50
    assert len(ids.nonce()) == 12
    assert ids.nonce() != ids.nonce()
    assert len(ids.secret().get_secret_value()) >= 32


async def test_the_state_is_that_of_the_request(stage: Stage) -> None:
    async with stage.process() as one:
        state, _ = await one.service.put("acme", "portal", portal_body(), "\ud800 admin")

    assert isinstance(state, IntegrationState)
    assert (state.webhook_path, state.sync_state, state.mode) == (None, "disabled", IntegrationMode.PRODUCTION)
    assert history(stage)[0].by == "? admin"
