"""Tests of ``rentstream check``: everything that is wrong is named, and exit code 0 means that all is well."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.buildium.standin import DEMO_ID, DEMO_SECRET, BuildiumStandIn, seed_portfolio
from connectors.clock import SystemClock
from connectors.rentsync.standin import PATH, RentSyncStandIn
from connectors.serving import running_aside
from streams.roles.check import Finding, Findings, lines
from streams.view.database import Database, parse_url
from tests.streams.roles.terminal import Terminal

KEY = "a-key-of-rentsync"


def test_the_lines_for_people() -> None:
    findings = Findings([Finding("Kafka", True, "it answers"), Finding("x", None, "a note", "look")])
    assert lines(findings) == [
        "ok      Kafka  it answers",
        "note    x      a note",
        "               fix: look",
        "all is well",
    ]
    findings.add("y", False, "broken")
    assert lines(findings)[-2:] == ["failed  y      broken", "something failed: correct it and run the check again"]


def test_every_wrong_setting_is_named_at_once(terminal: Terminal) -> None:
    terminal.env = {
        "RENTSTREAM_PARTITIONS": "none",
        "KAFKA_REPLICATION_FACTOR": "0",
        "BUILDIUM_CLIENT_ID": "an-id",
        "BUILDIUM_CLIENT_SECRET": "canary-secret",
        "BUILDIUM_BASE_URL": "ftp://x",
    }
    printed = terminal.run("check")
    assert terminal.exit_code == 1
    for name in ("RENTSTREAM_PARTITIONS", "KAFKA_REPLICATION_FACTOR", "BUILDIUM_BASE_URL"):
        assert name in printed
    assert "canary" not in printed
    assert "Traceback" not in printed


def test_without_kafka_it_says_what_to_do(terminal: Terminal) -> None:
    terminal.env = {}
    assert "set KAFKA_BOOTSTRAP_SERVERS, or start `rentstream up`" in terminal.run("check")
    assert terminal.exit_code == 1


def test_a_kafka_that_does_not_answer_is_named(terminal: Terminal) -> None:
    printed = terminal.run("check")
    assert terminal.exit_code == 1
    assert "failed  Kafka " in printed


def test_the_database_of_the_view_is_tried(terminal: Terminal, tmp_path: Path) -> None:
    for url, expected in {
        f"sqlite:///{tmp_path}/none.db": "note    query view",
        "postgresql://ann:canary@127.0.0.1:1/rent": "failed  query view",
        "mysql://ann:canary@db/rent": "failed  query view",
    }.items():
        terminal.env = {"DATABASE_URL": url}
        printed = terminal.run("check")
        assert expected in printed
        assert "canary" not in printed
    assert "correct DATABASE_URL" in printed
    assert not (tmp_path / "none.db").exists()
    Database(parse_url(f"sqlite:///{tmp_path}/view.db")).migrate()
    terminal.env = {"DATABASE_URL": f"sqlite:///{tmp_path}/view.db"}
    assert "ok      query view" in terminal.run("check")


@pytest.fixture
def stand_ins(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that lead to both stand-ins."""
    buildium, rentsync = BuildiumStandIn(seed_portfolio(SystemClock())), RentSyncStandIn(KEY, SystemClock())
    with running_aside(buildium) as pms, running_aside(rentsync.app) as receiver:
        yield {
            "BUILDIUM_CLIENT_ID": DEMO_ID,
            "BUILDIUM_CLIENT_SECRET": DEMO_SECRET,
            "BUILDIUM_BASE_URL": f"{pms}/v1",
            "BUILDIUM_WEBHOOK_SECRET": "a-webhook-secret",
            "RENTSYNC_URL": f"{receiver}{PATH}",
            "RENTSYNC_API_KEY": KEY,
            "RENTSTREAM_ALLOW_PRIVATE": "1",
        }


@pytest.mark.broker
def test_the_check_of_a_whole_installation(
    kafka: str, topic_prefix: str, terminal: Terminal, stand_ins: dict[str, str]
) -> None:
    terminal.env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "RENTSTREAM_TOPIC_PREFIX": topic_prefix,
        "RENTSTREAM_PARTITIONS": "2",
    }
    missing = terminal.run("check")
    assert (terminal.exit_code, "run `rentstream topics --apply`" in missing) == (1, True)
    terminal.run("topics", "--apply")
    empty = terminal.run("check")
    assert (terminal.exit_code, "rentstream integrations put" in empty) == (1, True)

    terminal.env |= stand_ins
    printed = terminal.run("check")
    assert terminal.exit_code == 0, printed
    assert "default/buildium" in printed
    assert "default/rentsync" in printed
    assert printed.splitlines()[-1] == "all is well"

    terminal.env["BUILDIUM_CLIENT_SECRET"] = "canary-wrong-secret"
    found = json.loads(terminal.run("check", "--json"))
    assert (terminal.exit_code, found["ok"]) == (1, False)
    wrong = [one for one in found["checks"] if one["result"] == "failed"]
    assert wrong
    assert all(one["name"].startswith("default/buildium") and one["fix"] for one in wrong)
    assert "canary" not in json.dumps(found)
