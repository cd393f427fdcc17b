"""Tests of ``rentstream replay``: what is printed, and what the command waits for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connectors.ports import FieldError
from schemas import topics
from schemas.replay import PlannedKey, ReplayWish
from streams.backends.memory import MovableClock
from streams.core.replays import ReplayState
from streams.directory.model import Invalid, NotFound
from streams.replays.book import Replay
from streams.replays.planner import ReplayRequest
from streams.roles import replay as role
from streams.roles.manage import ManageFailed, ManageRefused
from streams.settings import KafkaSettings, RentStreamSettings
from streams.view.database import Database, parse_url
from tests.streams.core.test_replays import order, planned, progress
from tests.streams.replays.parts import memory_replays
from tests.streams.roles.terminal import Terminal
from tests.streams.web.api.parts import memory_view


def whole(state: ReplayWish | None = None, **more: Any) -> Replay:
    plan = planned(tuple(range(1200))).model_copy(
        update={
            "matched": 1234,
            "superseded": 30,
            "exhausted": 3,
            "unsuitable": 1,
            "keys": tuple(PlannedKey(entity=f"property:{one}", integration="rentsync", records=1) for one in range(11)),
            "key_count": 600,
        }
    )
    return Replay(plan, None if state is None else order(state), progress(**more) if more else None)


def test_a_plan_is_shown_in_numbers_that_add_up() -> None:
    lines = role.plan_lines(whole())
    assert lines[0] == "t of o: 1,234 records found"
    numbers = [int(line.split()[0].replace(",", "")) for line in lines[1:5]]
    assert sum(numbers) == 1234
    assert lines[5] == "about 60 s at 20 a second, behind live changes"
    assert lines[6].split() == ["1", "property:0", "rentsync"]
    assert lines[-1].endswith("590 more entities (--json names 100)")
    nothing = Replay(planned(()))
    assert role.plan_lines(nothing) == ["nothing matches, so nothing is replayed"]


def test_a_report_has_the_numbers_of_its_plan() -> None:
    one = whole(ReplayWish.RUN, position=700, replayed=690, gone=7, unreadable=2, refused=1)
    lines = role.report_lines(one, 4)
    assert lines[0] == "r1: running, 700 of 1,200 records done"
    assert sum(int(line.split()[0]) for line in lines[1:6]) == one.plan.replayed
    assert lines[-1].startswith("of the replayed ones 4 were given up again")
    assert len(role.report_lines(one, 0)) == len(lines) - 1
    assert len(role.report_lines(one, None)) == len(lines) - 1


def test_replays_are_listed() -> None:
    assert role.list_lines([]) == ["nothing was ever replayed"]
    (line,) = role.list_lines([whole(ReplayWish.PAUSE, position=3, replayed=3)])
    assert line.split() == ["r1", "paused", "3", "of", "1,200", "t", "by", "ann"]


def test_json_has_the_form_of_the_api() -> None:
    found = role.as_json(whole(ReplayWish.RUN, position=3, replayed=3), 1)
    assert (found["id"], found["state"], found["seconds"]) == ("r1", "running", 59.9)
    assert found["report"] == {
        "replayed": 3, "gone": 0, "unreadable": 0, "refused": 0, "left": 1197, "givenUpAgain": 1,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the progress


@dataclass
class Bar:
    """Remembers what it was moved by."""

    moves: list[int] = field(default_factory=list)

    def update(self, n_steps: int) -> None:
        self.moves.append(n_steps)


class Moving:
    """A service whose replay is somewhere else at each look."""

    def __init__(self, *replays: Replay) -> None:
        self.replays = list(replays)

    async def get(self, org: str, replay: str) -> Replay:
        assert (org, replay) == ("o", "r1")
        return self.replays.pop(0) if len(self.replays) > 1 else self.replays[0]


class Instant(MovableClock):
    """Time passes where someone waits."""

    async def sleep(self, seconds: float) -> None:
        self._passed += seconds


async def test_the_bar_moves_with_the_progress_until_the_end() -> None:
    looks = [whole(ReplayWish.RUN, position=one, replayed=one) for one in (100, 100, 700)]
    end = whole(ReplayWish.RUN, position=1200, replayed=1200, ended_at=progress().at)
    bar = Bar()
    found = await role.followed(Moving(*looks, end), looks[0], bar, Instant())  # type: ignore[arg-type]
    assert found.state is ReplayState.DONE
    assert bar.moves == [100, 600, 500]


async def test_it_ends_with_a_pause_by_another_person() -> None:
    running, paused = whole(ReplayWish.RUN), whole(ReplayWish.PAUSE, position=10, replayed=10)
    found = await role.followed(Moving(paused), running, Bar(), Instant())  # type: ignore[arg-type]
    assert found.state is ReplayState.PAUSED


async def test_without_a_worker_it_says_so() -> None:
    running = whole(ReplayWish.RUN)
    with pytest.raises(ManageFailed, match="look whether a worker is running"):
        await role.followed(Moving(running), running, Bar(), Instant())  # type: ignore[arg-type]


async def test_a_dry_run_stores_nothing() -> None:
    view = memory_view()
    replays = memory_replays(view, MovableClock())
    shown = await role.planned(replays, ReplayRequest("o"), store=False)
    with pytest.raises(NotFound):
        await replays.get("o", shown.plan.id)
    stored = await role.planned(replays, ReplayRequest("o"), store=True)
    found = await role.ordered(replays, "o", stored.plan.id, ReplayWish.CANCEL)
    assert found.state is ReplayState.CANCELLED


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, {"DATABASE_URL": f"sqlite:///{tmp_path}/view.db", "KAFKA_BOOTSTRAP_SERVERS": "x:1"})


def test_wrong_options_are_named(terminal: Terminal) -> None:
    for words, named in (
        (("--id", "7"), "PARTITION-OFFSET"),
        (("--since", "yesterday"), "--since needs a time"),
        (("--rate", "x"), "--rate"),
        (("nope",), "nope"),
    ):
        terminal.run("replay", *words)
        assert terminal.exit_code == 2
        assert named in "".join(terminal.outputs)


def test_without_a_view_nothing_is_planned(terminal: Terminal) -> None:
    terminal.run("replay", "--dry-run")
    assert terminal.exit_code == 1
    assert "there is no query view" in "".join(terminal.outputs)


def test_what_is_wrong_with_a_request_is_one_line_for_each_option(tmp_path: Path) -> None:
    settings = RentStreamSettings.read({"DATABASE_URL": f"sqlite:///{tmp_path}/view.db"})
    Database(parse_url(f"sqlite:///{tmp_path}/view.db")).migrate()

    async def refuse(*_: Any) -> None:
        raise Invalid((FieldError("/topic", "cannot be replayed"), FieldError("/since", "is needed")))

    with pytest.raises(ManageRefused) as caught:
        _run_without_kafka(settings, refuse)
    assert str(caught.value).split("\n  ") == ["--topic cannot be replayed", "--since is needed"]


def _run_without_kafka(settings: RentStreamSettings, action: Any) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(role, "service", _no_service)
        role.run(settings, KafkaSettings.read({"KAFKA_BOOTSTRAP_SERVERS": "x:1"}), action)


class _no_service:  # noqa: N801 -- in the place of a function
    def __init__(self, *_: Any) -> None:
        self.topic = topics.REPLAY_STATES

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None
