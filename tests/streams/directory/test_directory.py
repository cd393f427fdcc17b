"""Tests of the directory: how it applies records, and its answers to the flows and the ingress."""

import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import Configuration, LeasingRules, Refused
from schemas.base import EntityKind, Model
from schemas.codec import encode
from schemas.integrations import CheckReport, HoldReport, Integration, StoredSetting, SyncProgress, SyncResult
from schemas.partitions import partition_for
from schemas.pms import FetchRequest
from streams.core.policy import Switches
from streams.directory.directory import Directory
from streams.directory.entry import HeldReader, ProblemKind
from streams.directory.keyring import KeyRing
from tests.streams.directory.records import AT, INTEGRATIONS, STATUS, note, pms, portal, put, sealed, settings
from tests.streams.directory.stage import ring
from tests.streams.directory.systems import FakePms, FakePortal, configuration


def directory(
    keys: KeyRing | None = None,
    connector: FakePms | None = None,
    *,
    enabled: bool = True,
    **environment: Configuration,
) -> Directory:
    return Directory({"pms": connector or FakePms(), "portal": FakePortal()}, environment, enabled, keys or ring("k1"))


def report(name: str, account: int | None = None, at: datetime = AT) -> CheckReport:
    return CheckReport(org="acme", name=name, version=1, at=at, passed=True, checks=(), account=account)


ENVIRONMENT = configuration(
    {"baseUrl": "https://pms.example/1"}, clientId="id", clientSecret="from-the-environment", webhookSecret="hook-env"
)


def hold(name: str = "main", **more: Any) -> HoldReport:
    facts: dict[str, Any] = {"version": 1, "reason": "unauthorized", "detail": "401", "since": AT, "refused": True}
    return HoldReport(org="acme", name=name, **{"until": AT + timedelta(minutes=1), **facts, **more})


def test_a_hold_is_shown_as_long_as_it_is_about_the_present_configuration() -> None:
    known = directory()
    put(known, pms())
    note(known, "hold", hold())
    state = known.state("acme", "main")
    assert state
    assert state.hold == (
        "401 (correct the configuration; on hold since 2026-03-01T12:00:00Z, "
        "the next call is tried at 2026-03-01T12:01:00Z)"
    )
    assert known.held_systems() == {"pms"}
    assert known.status_keys("acme", "main") == (b"acme/main/hold",)

    for ended in (hold(until=None), hold(version=2), hold(since=AT - timedelta(days=999))):
        note(known, "hold", ended)
        assert known.hold("acme", "main") is None
        assert known.hold_report("acme", "main") == ended
    note(known, "hold", hold())
    put(known, pms(enabled=False))
    assert known.hold("acme", "main") is None
    assert known.held_systems() == frozenset()
    note(known, "hold", hold("gone"))
    assert known.hold("acme", "gone") is None


def test_what_is_on_a_partition_follows_the_records() -> None:
    """Each org is on one, and a change shows at once."""
    known = directory()
    for org in ("acme", "maple", "cedar"):
        put(known, pms(org=org))
    found = [known.on_partition(partition, 3) for partition in range(3)]
    assert sorted(org for one in found for org in one.orgs) == ["acme", "cedar", "maple"]
    assert [[one.org for one in part.connections] for part in found] == [list(part.orgs) for part in found]

    partition = partition_for("acme", 3)
    put(known, pms(name="other", enabled=False))
    names = [(one.name, one.enabled) for one in known.on_partition(partition, 3).connections if one.org == "acme"]
    assert names == [("main", True), ("other", False)]


# ----------------------------------------------------------------------------------------------- stored and environment


def test_a_stored_integration_has_the_values_of_its_record() -> None:
    known = directory()
    put(known, pms())
    entry, state = known.get("acme", "main"), known.state("acme", "main")

    assert entry
    assert state
    assert entry.problem is None
    assert {
        name: [one.get_secret_value() for one in several] for name, several in entry.configuration.secrets.items()
    } == {
        "clientId": ["id"],
        "clientSecret": ["the-secret-1234"],
        "webhookSecret": ["hook-main"],
    }
    assert state.settings == {"baseUrl": "https://pms.example/77", "timezone": "America/Toronto"}
    assert [(one.name, one.last4, one.since, one.readable) for one in state.secrets] == [
        ("clientId", None, AT, True),
        ("clientSecret", "1234", AT, True),
        ("webhookSecret", None, AT, True),
    ]
    assert (state.origin, state.enabled, state.version, state.hold) == ("stored", True, 1, None)
    assert (state.mode, state.role, state.sync_state) == ("sandbox", "source", "never_synced")
    assert state.webhook_path == "/api/webhooks/pms/token-acme-main"
    assert known.state("acme", "other") is None


def test_the_environment_describes_integrations_of_the_default_org() -> None:
    known = directory(pms=ENVIRONMENT, portal=configuration({"url": "https://p"}, apiKey="k"))
    state = known.state("default", "pms")

    assert state
    assert (state.origin, state.enabled, state.version) == ("environment", True, 0)
    assert [(one.name, one.last4) for one in state.secrets] == [
        ("clientId", None),
        ("clientSecret", "ment"),
        ("webhookSecret", None),
    ]
    assert state.webhook_path == "/api/webhooks/pms"
    assert [one.name for one in known.sinks("default")] == ["portal"]


def test_the_environment_can_disable_sources_only() -> None:
    known = directory(enabled=False, pms=ENVIRONMENT, portal=configuration({"url": "https://p"}, apiKey="k"))

    assert [one.enabled for one in known.connections()] == [False]
    assert [one.name for one in known.sinks("default")] == ["portal"]


def test_a_stored_integration_overrides_that_of_the_environment_until_it_is_deleted() -> None:
    known = directory(pms=ENVIRONMENT, portal=configuration({"url": "https://p"}, apiKey="k"))
    put(known, pms("default", "pms", enabled=False))
    stored = known.get("default", "pms")
    untouched = known.get("default", "portal")
    known.apply(INTEGRATIONS, b"default/pms", None)
    back = known.get("default", "pms")

    assert stored
    assert untouched
    assert back
    assert (stored.origin, stored.enabled) == ("stored", False)
    assert untouched.origin == "environment"
    assert (back.origin, back.enabled) == ("environment", True)


def test_integrations_are_listed_by_org_and_name() -> None:
    known = directory(pms=ENVIRONMENT)
    put(known, pms("zeta"), portal(), pms())

    assert [(one.org, one.name) for one in known.integrations()] == [
        ("acme", "main"),
        ("acme", "portal"),
        ("default", "pms"),
        ("zeta", "main"),
    ]
    assert [one.name for one in known.integrations("acme")] == ["main", "portal"]
    assert known.integrations("nowhere") == ()


def test_a_tombstone_without_an_integration_changes_nothing() -> None:
    known = directory()
    known.apply(INTEGRATIONS, b"acme/main", None)
    known.apply(STATUS, b"acme/main/check", None)

    assert known.integrations() == ()
    assert known.unreadable == ()


# --------------------------------------------------------------------------------------------------- what the flows ask


def test_connections_are_the_sources_with_their_time_zone() -> None:
    known = directory()
    put(known, pms(), pms("acme", "second", enabled=False), portal(), pms("zeta"))

    assert [(one.org, one.name, one.enabled, one.timezone) for one in known.connections()] == [
        ("acme", "main", True, "America/Toronto"),
        ("acme", "second", False, "America/Toronto"),
        ("zeta", "main", True, "America/Toronto"),
    ]
    assert [one.name for one in known.connections("acme")] == ["main", "second"]
    assert known.connection("zeta", "main") == known.connections("zeta")[0]
    assert known.connection("acme", "portal") is None
    put(known, pms("zeta", enabled=False))
    assert not known.connections("zeta")[0].enabled


def test_sinks_are_the_enabled_receivers_and_their_identity_is_that_of_the_receiver() -> None:
    known = directory()
    put(known, portal(), portal(name="off", enabled=False), pms())
    (before,) = known.sinks("acme")

    def identity(**more: Any) -> str:
        put(known, portal(**more))
        return known.sinks("acme")[0].identity

    assert (before.org, before.name, before.system) == ("acme", "portal", "portal")
    assert identity(version=2, secrets=(sealed("acme", "portal", "apiKey", "another"),)) == before.identity
    assert identity(url="https://elsewhere.example") != before.identity
    assert identity(created_at=AT + timedelta(days=1)) != before.identity
    assert identity(properties_off=(7,)) == before.identity
    assert known.sinks("acme")[0].includes(8)
    assert not known.sinks("acme")[0].includes(7)
    assert known.sinks("zeta") == ()


def revisions(known: Directory, connection: str = "main") -> list[str]:
    return [one.revision for one in known.policies("acme", connection)]


RECONFIGURED: dict[str, Integration] = {
    "the receiver's address": portal(url="https://elsewhere.example"),
    "the receiver's switches": portal(properties_off=(7,)),
    "another receiver of this name": portal(created_at=AT + timedelta(days=1)),
    "the receiver was disabled for a while": portal(enabled_at=AT + timedelta(days=1)),
    "the connection's switches": pms(properties_default=False, properties_on=(7,)),
    "the connection's time zone": pms(settings=settings(baseUrl="https://pms.example/77", timezone="UTC")),
    "the connection's make-ready days": pms(
        settings=settings(baseUrl="https://pms.example/77", timezone="America/Toronto", makeReadyDays=5)
    ),
}


@pytest.mark.parametrize("record", RECONFIGURED.values(), ids=RECONFIGURED)
def test_a_revision_changes_with_all_that_decides_what_a_receiver_is_sent(record: Integration) -> None:
    known = directory()
    put(known, portal(), pms())
    (before,) = revisions(known)
    put(known, record)

    assert revisions(known) != [before]
    put(known, portal(), pms())
    assert revisions(known) == [before]


@pytest.mark.parametrize("rules", [LeasingRules(auto_move_out_days=30), LeasingRules(listed_only=True)])
def test_a_revision_changes_with_the_rules_of_the_process(rules: LeasingRules) -> None:
    """After a restart with another setting every property is looked at again."""
    found = []
    for connector in (FakePms(), FakePms(rules=rules)):
        known = directory(connector=connector)
        put(known, portal(), pms())
        found += revisions(known)
    assert found[0] != found[1]


def test_a_revision_changes_with_nothing_else() -> None:
    """Neither with secrets nor with other integrations, and a connection that is disabled keeps its rent roll."""
    known = directory()
    put(known, portal(), pms())
    before = revisions(known)
    put(known, portal(version=2, secrets=(sealed("acme", "portal", "apiKey", "another"),)))
    put(known, pms(secret="another-secret", enabled=False), pms(name="second"), portal("zeta"), pms("zeta"))

    assert revisions(known) == before


def test_receivers_have_a_revision_with_each_connection() -> None:
    known = directory()
    put(known, portal(), portal(name="other", properties_off=(7,)), pms(), pms(name="second", properties_off=(8,)))
    every = [*revisions(known), *revisions(known, "second"), *revisions(known, "gone")]

    assert len(set(every)) == len(every) == 6
    assert [one.name for one in known.policies("acme", "main")] == ["other", "portal"]
    assert [one.revision for one in known.sinks("acme")] == ["", ""]


def test_the_system_of_an_integration_is_shown_and_not_its_name() -> None:
    known = directory()
    put(known, portal(name="north"), pms())

    assert [known.system_of("acme", name) for name in ("north", "main", "gone")] == ["portal", "pms", "other"]
    assert known.sink_systems == ("portal",)


def test_switches_of_a_source_decide_which_properties_take_part() -> None:
    known = directory()
    put(known, pms(properties_default=False, properties_on=(1, 2)))

    assert known.switches("acme", "main") == Switches(default=False, on=frozenset({1, 2}))
    assert known.switches("acme", "unknown").includes(1)


def test_revisions_increase_with_configurations_only() -> None:
    known = directory()
    seen = [(known.revision, known.configured)]
    put(known, pms())
    seen.append((known.revision, known.configured))
    note(known, "check", report("main"))
    seen.append((known.revision, known.configured))

    assert [after > before for (before, _), (after, _) in itertools.pairwise(seen)] == [True, True]
    assert [after > before for (_, before), (_, after) in itertools.pairwise(seen)] == [True, False]


# ------------------------------------------------------------------------------------------------ one stops only itself


def problem(known: Directory, name: str = "main") -> tuple[ProblemKind, str]:
    entry = known.get("acme", name)
    assert entry
    assert entry.problem
    state = known.state("acme", name)
    assert state
    assert state.hold == str(entry.problem)
    return entry.problem.kind, entry.problem.detail


def test_a_lost_key_affects_only_its_secrets(caplog: pytest.LogCaptureFixture) -> None:
    known = directory(ring("k2"))
    put(known, pms(), pms(name="other", key="k2"))
    kind, detail = problem(known)
    state = known.state("acme", "main")

    assert kind is ProblemKind.UNREADABLE_SECRET
    assert "put the key with the id k1 back, or enter the secret again" in detail
    assert "is held" not in caplog.text
    known.caught_up = True
    put(known, pms(version=2))
    assert caplog.text.count("Integration acme/main is held") == 2
    assert state
    assert [one.readable for one in state.secrets] == [False] * 3
    assert state.sync_state == "held"
    assert [(one.name, one.enabled, one.timezone) for one in known.connections()] == [
        ("main", False, "America/Toronto"),
        ("other", True, "America/Toronto"),
    ]


def test_an_unknown_system_affects_only_its_integration() -> None:
    known = directory()
    put(known, pms(system="future"), pms(name="other"))
    kind, detail = problem(known)

    assert kind is ProblemKind.UNKNOWN_SYSTEM
    assert detail == "this release has no system 'future': upgrade RentStream, or delete the integration"
    assert [(one.name, one.enabled) for one in known.connections()] == [("main", False), ("other", True)]


def test_invalid_settings_affect_only_their_integration() -> None:
    known = directory()
    put(
        known,
        pms(settings=(StoredSetting(name="old", value="1"),)),
        pms(name="torn", settings=(StoredSetting(name="a", value="{"),)),
    )

    assert problem(known) == (
        ProblemKind.INVALID,
        (
            "the configuration of main is not valid (/settings/old: no such setting; /settings/baseUrl: it is required)"
            ": correct and put it again"
        ),
    )
    assert problem(known, "torn") == (ProblemKind.INVALID, "the settings of torn are damaged: put them again")


def test_an_exception_of_a_connector_affects_only_its_integration_and_shows_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = directory(connector=FakePms(broken=True))
    put(known, pms(), portal())

    assert problem(known)[0] is ProblemKind.INVALID
    assert "the-secret" not in caplog.text
    assert [one.name for one in known.sinks("acme")] == ["portal"]


@pytest.mark.parametrize(
    ("topic", "key", "value", "detail"),
    [
        (INTEGRATIONS, b"acme/main", b"nonsense", "not a record of ours"),
        (INTEGRATIONS, b"acme/main", encode(report("main")), "a CheckReport where a Integration belongs"),
        (INTEGRATIONS, b"acme/main", encode(portal()), "about another integration than its key names"),
        (INTEGRATIONS, b"acme", encode(pms()), "its key has to have 2 parts"),
        (INTEGRATIONS, None, encode(pms()), "its key has to have 2 parts"),
        (INTEGRATIONS, b"acme/", None, "its key has to have 2 parts"),
        (STATUS, b"acme/main/check", b"", "not a record of ours"),
        (STATUS, b"acme/main/weather", encode(report("main")), "no kind of status is called weather"),
        (STATUS, b"acme/main/sync", encode(report("main")), "a CheckReport where a SyncResult belongs"),
    ],
)
def test_a_malformed_record_is_logged_and_skipped(
    topic: str, key: bytes | None, value: bytes | None, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = directory()
    put(known, pms())
    for _ in range(2):
        known.apply(topic, key, value)
    (noted,) = known.unreadable

    assert detail in noted.detail
    assert noted.topic == topic
    assert caplog.text.count("is skipped") == 1
    assert [one.name for one in known.connections()] == ["main"]


def test_a_later_record_clears_an_unreadable_one() -> None:
    known = directory()
    known.apply(INTEGRATIONS, b"acme/main", b"nonsense")
    put(known, pms())

    assert known.unreadable == ()


@given(st.sampled_from([INTEGRATIONS, STATUS, "another"]), st.none() | st.binary(max_size=20), st.none() | st.binary())
def test_no_record_raises(topic: str, key: bytes | None, value: bytes | None) -> None:
    known = directory()
    known.apply(topic, key, value)

    assert known.integrations() == ()


# ------------------------------------------------------------------------------------------------------------- webhooks


def verified(known: Directory, secret: str, token: str | None = None, body: bytes = b"{}") -> str | None:
    """Return the connection whose reader is the first to verify."""
    for reader in known.readers("pms", token, body):
        found = reader.read([(b"secret", secret.encode())], body, AT)
        if isinstance(found, FetchRequest):
            return f"{found.org}/{found.connection}" + (f" {found.ignored}" if found.ignored else "")
    return None


def test_a_token_selects_its_connection_only() -> None:
    known = directory()
    put(known, pms(), pms(name="second"))

    assert verified(known, "hook-second", "token-acme-second") == "acme/second"
    assert verified(known, "hook-main", "token-acme-second") is None
    assert known.readers("pms", "guessed", b"{}") == ()
    assert known.readers("portal", "token-acme-second", b"{}") == ()


def test_a_name_selects_a_connection_of_the_environments_org_only() -> None:
    known = directory(pms=ENVIRONMENT)
    put(known, pms())

    assert verified(known, "hook-env", "pms") == "default/pms"
    assert known.readers("pms", "main", b"{}") == ()
    put(known, pms("default", "pms"))
    assert verified(known, "hook-pms", "pms") == "default/pms"


def test_an_old_token_selects_no_connection() -> None:
    known = directory()
    put(known, pms())
    known.apply(INTEGRATIONS, b"acme/main", None)
    put(known, pms(webhook_token="new"))

    assert known.readers("pms", "token-acme-main", b"{}") == ()
    assert verified(known, "hook-main", "new") == "acme/main"


def test_the_plain_path_selects_all_connections_including_disabled_ones() -> None:
    known = directory()
    put(known, pms(), pms(name="second", enabled=False), portal())

    assert verified(known, "hook-main") == "acme/main"
    assert verified(known, "hook-second") == "acme/second disabled"
    assert known.readers("nowhere", None, b"{}") == ()
    assert known.readers("portal", None, b"{}") == ()


def first(known: Directory, body: bytes) -> Sequence[str]:
    return [getattr(one, "connection", "held") for one in known.readers("pms", None, body)]


def test_the_plain_path_tries_the_connection_with_the_account_first() -> None:
    known = directory(ring("k1", "k3"))
    put(known, pms(name="a", enabled=False), pms(name="b"), pms(name="c"), pms(name="d", key="k2"))
    note(known, "check", report("c", 77))
    note(known, "check", report("b", 78))

    assert first(known, b'{"AccountId": 77}') == ["c", "b", "a", "held"]
    assert first(known, b'{"AccountId": 78}') == ["b", "c", "a", "held"]
    assert first(known, b"no JSON") == ["b", "c", "a", "held"]


def test_webhooks_of_a_connection_that_cannot_verify_have_to_be_sent_again() -> None:
    known = directory(ring("k2"))
    put(known, pms())
    (reader,) = known.readers("pms", "token-acme-main", b"{}")
    answer = reader.read([], b"{}", AT)

    assert isinstance(reader, HeldReader)
    assert isinstance(answer, Refused)
    assert answer.status == 503


# --------------------------------------------------------------------------------------------------------------- status


def progress(at: datetime, **more: Any) -> SyncProgress:
    facts = {"stage": EntityKind.UNIT, "number": 2, "stages": 4, "read": 120, "total": 300, **more}
    return SyncProgress(org="acme", name="main", sweep="s2", started_at=at, at=at, **facts)


def test_the_status_is_that_of_its_records_and_is_removed_with_them() -> None:
    known = directory()
    put(known, pms())
    done = SyncResult(
        org="acme",
        name="main",
        sweep="s1",
        started_at=AT,
        ended_at=AT + timedelta(minutes=2),
        entities=9,
        first_sweep="s1",
    )
    note(known, "sync", done)
    note(known, "progress", progress(AT + timedelta(minutes=5)))
    note(known, "check", report("main", 77))
    state = known.state("acme", "main")

    assert state
    assert (state.sync_state, state.sync_detail) == ("syncing", "stage 2 of 4, units 120 of 300")
    assert (state.last_ran, state.last_status) == (AT + timedelta(minutes=2), "Success")
    assert state.checks
    assert state.checks.account == 77
    assert known.status_keys("acme", "main") == (b"acme/main/check", b"acme/main/progress", b"acme/main/sync")
    for key in known.status_keys("acme", "main"):
        known.apply(STATUS, key, None)
    state = known.state("acme", "main")
    assert state
    assert (state.sync_state, state.checks, state.last_ran) == ("never_synced", None, None)


def test_a_new_integration_does_not_have_the_status_of_a_deleted_one() -> None:
    known = directory()
    note(known, "progress", progress(AT - timedelta(minutes=1)))
    note(known, "check", report("main", at=AT - timedelta(minutes=1)))
    put(known, pms())
    state = known.state("acme", "main")

    assert state
    assert (state.sync_state, state.checks, state.access) == ("never_synced", None, ())


def test_no_result_of_the_directory_shows_a_secret() -> None:
    known = directory(pms=ENVIRONMENT)
    put(known, pms(secret="canary-in-a-record"), portal())
    shown = repr(
        [known.integrations(), known.state("acme", "main"), known.state("default", "pms"), known.connections()]
    )

    assert "canary" not in shown
    assert "from-the-env" not in shown


def test_records_may_arrive_in_any_order_of_topics() -> None:
    records: list[tuple[str, Model]] = [("check", report("main", 5))]
    one, two = directory(), directory()
    put(one, pms())
    note(one, "check", records[0][1])
    note(two, "check", records[0][1])
    put(two, pms())

    assert one.state("acme", "main") == two.state("acme", "main")
