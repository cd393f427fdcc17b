"""Tests of ``rentstream view``: what is wrong is one sentence. The story of the view runs it on a cluster."""

from tests.streams.roles.terminal import Terminal


def test_a_database_that_is_none_is_refused(terminal: Terminal) -> None:
    terminal.env = {"DATABASE_URL": "mysql://ann:canary@db/rent", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    printed = terminal.run("view", "rebuild")
    assert terminal.exit_code == 2
    assert "DATABASE_URL begins with 'mysql'" in printed
    assert "canary" not in printed
    assert "Traceback" not in printed


def test_without_kafka_nothing_is_dropped(terminal: Terminal) -> None:
    terminal.env = {}
    printed = terminal.run("view", "rebuild")
    assert terminal.exit_code == 2
    assert "KAFKA_BOOTSTRAP_SERVERS" in printed
