"""Tests of the runner of a call in memory: order, priorities, commits and failures."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.ports import HASTE, Rejected, Throttled, Unavailable, may_call
from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.integrations import HoldReport
from schemas.partitions import partition_for
from schemas.retry import REPLAY, History, is_replayed
from schemas.topics import TopicSpec
from streams.backends.memory import MemoryBackend, MemoryConsumer, settle
from streams.backends.ports import Backend, BackendError, NotOwner, TooLarge
from streams.core.flows import Emit, ProducerRecord, Record
from streams.core.observer import NullObserver
from streams.core.retry import Dead, DeadLetterGuard, Done, Held, Outcome, Parked, Reason, ladder
from streams.runners.call import Call, CallFlow
from streams.runners.intake import Bounds
from tests.streams.runners.stage import FakePort, Runner, Stage, echo, emit_of, key, stage, text

LADDER = ladder("1m,2m")
SINCE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def calling(
    flow: CallFlow | FakePort | Sequence[CallFlow], world: Stage, **more: Any
) -> Callable[[MemoryBackend], Runner]:
    """Return a function that creates the call of one or several flows; a `FakePort` stands for the default flow.

    Records without a group have succeeded before, unless another guard is passed in.
    """
    if "guard" not in more:
        more["guard"] = DeadLetterGuard()
        more["guard"].succeeded()
    most = more.pop("max_in_flight", 10)
    flows = [CallFlow("f", ("in",), key, flow.perform, max_in_flight=most)] if isinstance(flow, FakePort) else flow
    return lambda backend: Call(
        "g", [flows] if isinstance(flows, CallFlow) else flows, backend, world.clock, LADDER, **more
    )


async def done(records: Sequence[Record]) -> Outcome:
    return echo(records)


# ----------------------------------------------------------------------------------------- --------- order and commits


async def test_effects_are_durable_in_the_same_partition_before_the_commit() -> None:
    async with stage(3) as world:
        world.produce("in", "org:1", partition=2)
        world.broker.refuses = lambda _: BackendError("full") if world.broker.committed("g", "in", 2) else None
        await world.start(calling(CallFlow("f", ("in",), key, done), world))

        assert world.texts("out", 2) == ["org:1"]
        assert world.broker.committed("g", "in", 2) == 1
        assert world.broker.lag("g") == 0


async def test_records_of_a_key_are_performed_in_order_and_different_keys_concurrently() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "a:2", "b:1", "a:3")
        await world.start(calling(port, world))
        assert port.open == ["a:1", "b:1"]
        await port.end("a:1")
        await port.end("a:2")

        assert port.began == [["a:1"], ["b:1"], ["a:2"], ["a:3"]]


async def test_calls_in_flight_are_limited() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", *(f"{number}:" for number in range(9)))
        await world.start(calling(port, world, max_in_flight=3))
        assert len(port.open) == 3
        await port.end("1:")

        assert port.open == ["0:", "2:", "3:"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=14), st.randoms(use_true_random=False), st.integers(1, 6))
def test_only_the_contiguous_finished_prefix_is_committed(keys: list[str], random_: random.Random, most: int) -> None:
    async def scenario() -> None:
        port = FakePort()
        names = [f"{one}:{number}" for number, one in enumerate(keys)]
        finished: set[str] = set()
        async with stage() as world:
            world.produce("in", *names)
            await world.start(calling(port, world, max_in_flight=most, bounds=Bounds(hold_records=4, fetch_records=3)))
            while port.open:
                assert len(port.open) <= most
                name = random_.choice(port.open)
                await port.end(name)
                finished.add(name)
                prefix = next((at for at, one in enumerate(names) if one not in finished), len(names))
                assert world.broker.committed("g", "in", 0) == (prefix or None)
            assert finished == set(names)
            for one in set(keys):
                of_key = [name for name in names if name.startswith(one)]
                assert [name for name in world.texts("out") if name.startswith(one)] == of_key

    asyncio.run(scenario())


async def test_a_backlog_is_held_with_bounded_memory() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", *("a:" for _ in range(100)))
        process = await world.start(calling(port, world, bounds=Bounds(hold_records=10, fetch_records=10)))
        call = process.runner
        assert isinstance(call, Call)
        assert call._lanes.waiting < 10
        for _ in range(100):
            await port.end("a:")
            assert call._lanes.waiting < 20

        assert world.broker.lag("g") == 0
        assert call.settled


async def test_bytes_in_memory_are_limited() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", *("a:" + "x" * 100 for _ in range(50)))
        process = await world.start(calling(port, world, bounds=Bounds(hold_bytes=300, fetch_records=2)))
        assert isinstance(process.runner, Call)

        assert process.runner._lanes.waiting + 1 == 4


# ------------------------------------------------------------------------------------------------------- coalescing


async def test_waiting_records_are_performed_together_and_later_ones_wait() -> None:
    port = FakePort()
    flow = CallFlow("f", ("in",), key, port.perform, joins=key)
    async with stage() as world:
        world.produce("in", "a:1")
        await world.start(calling(flow, world))
        world.produce("in", "a:2", "b:1", "a:3")
        await settle()
        await port.end("a:1")
        world.produce("in", "a:4")
        await settle()
        await port.end("a:2")
        await port.end("a:4")
        assert world.broker.committed("g", "in", 0) == 2
        await port.end("b:1")

        assert port.began == [["a:1"], ["b:1"], ["a:2", "a:3"], ["a:4"]]
        assert world.broker.lag("g") == 0


async def test_records_performed_together_are_parked_by_their_own_attempts() -> None:
    async def fails(_records: Sequence[Record]) -> Unavailable:
        return Unavailable("down", 503)

    async with stage() as world:
        world.produce("in", "a:old", headers=(("rent-attempt", b"2"),))
        world.produce("in", "a:older", headers=(("rent-attempt", b"1"),))
        world.produce("in", "a:new")
        await world.start(calling(CallFlow("f", ("in",), key, fails, joins=key), world))

        assert world.texts("dead-letters") == ["a:old"]
        assert world.texts("retry.2m") == ["a:older"]
        assert world.texts("retry.1m") == ["a:new"]
        assert world.broker.lag("g") == 0


async def test_an_exception_for_one_record_does_not_affect_the_others() -> None:
    async def picky(records: Sequence[Record]) -> Outcome:
        if any("bad" in text(one) for one in records):
            raise KeyError("bad")
        return echo(records)

    async with stage() as world:
        world.produce("in", "a:1", "a:bad", "a:2")
        await world.start(calling(CallFlow("f", ("in",), key, picky, joins=key), world))

        assert world.texts("out") == ["a:1", "a:2"]
        assert world.texts("dead-letters") == ["a:bad"]
        assert world.broker.lag("g") == 0


# ------------------------------------------------------------------------------------------------------- priorities


def ranked(port: FakePort, most: int = 10) -> CallFlow:
    return CallFlow("f", ("commands", "webhooks", "sweeps"), key, port.perform, max_in_flight=most)


async def test_records_of_a_higher_priority_topic_go_first() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("sweeps", "a:s1", "b:s2", "c:s3")
        await world.start(calling(ranked(port, 1), world))
        world.produce("webhooks", "d:n1")
        world.produce("commands", "e:c1")
        world.produce("webhooks", "b:n2")
        await settle()
        while port.open:
            await port.end(port.open[0])

        assert [name for (name,) in port.began] == ["a:s1", "e:c1", "d:n1", "b:n2", "c:s3", "b:s2"]


async def test_lower_priority_topics_leave_slots_to_higher_ones() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("sweeps", *(f"{number}:s" for number in range(5)))
        await world.start(calling(ranked(port, 4), world))
        assert len(port.open) == 2
        world.produce("webhooks", "x:n", "y:n")
        world.produce("commands", "z:c", "w:c")
        await settle()

        assert port.open == ["0:s", "1:s", "z:c", "w:c"]


async def test_background_flows_begin_nothing_while_they_are_held() -> None:
    """As long as tables recover; what is in flight then ends, and nothing is lost."""
    port = FakePort()
    async with stage() as world:
        flows = [
            CallFlow("f", ("commands",), key, port.perform),
            CallFlow("b", ("sweeps",), key, port.perform, background=True),
        ]
        one = await world.start(calling(flows, world))
        assert isinstance(one.runner, Call)
        world.produce("sweeps", "a:s1")
        await settle()
        one.runner.hold_background(True)
        world.produce("sweeps", "b:s2")
        world.produce("commands", "c:c1")
        await settle()
        assert port.open == ["a:s1", "c:c1"]
        await port.end("a:s1")
        await settle()
        assert port.open == ["c:c1"]
        one.runner.hold_background(False)
        await settle()
        assert port.open == ["c:c1", "b:s2"]


async def test_a_backlog_of_a_lower_priority_does_not_block_a_higher_one() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("sweeps", *("a:s" for number in range(100)))
        await world.start(calling(ranked(port), world, bounds=Bounds(hold_records=5, fetch_records=5)))
        world.produce("commands", "b:c")
        await settle()

        assert port.open == ["a:s", "b:c"]


def test_a_topic_belongs_to_one_flow() -> None:
    flow = CallFlow("f", ("in",), key, done)

    with pytest.raises(ValueError, match="two flows read the same topic"):
        Call("g", [flow, flow], MemoryBackend(Stage().broker), Stage().clock, LADDER)


# --------------------------------------------------------------------------------------------------------- fairness


async def latencies(orgs: int, silent: int, seconds: int = 60) -> dict[str, list[int]]:
    """Return by org the milliseconds from a record to its effect; calls of the first ``silent`` orgs never end.

    All orgs are on one partition, and each gets a record a second.
    """
    async with stage() as world:

        async def perform(records: Sequence[Record]) -> Outcome:
            org = int(text(records[0]).partition(":")[0])
            await world.clock.sleep(1e9 if org < silent else 0.2)
            return echo(records)

        flow = CallFlow(
            "f",
            ("in",),
            lambda record: tuple(text(record).split(":")),
            perform,
            group_of=lambda key: key[0],
            max_in_flight=64,
            max_in_flight_per_integration=4,
        )
        await world.start(calling(flow, world))
        for second in range(seconds):
            world.produce("in", *(f"{org}:{second}" for org in range(orgs)))
            await world.clock.advance(1)

        sent = {text(record): record.timestamp for record in world.broker.read("in")}
        found: dict[str, list[int]] = {}
        for record in world.broker.read("out"):
            found.setdefault(text(record).partition(":")[0], []).append(record.timestamp - sent[text(record)])
        return found


async def test_integrations_that_never_answer_do_not_delay_the_others() -> None:
    """Three of fifty never answer; the others finish more records behind theirs than may be unfinished."""
    found = await latencies(50, silent=3)

    assert sorted(found) == sorted(str(org) for org in range(3, 50))
    assert sum(map(len, found.values())) == 47 * 60 > Bounds().hold_records
    assert found == {org: times for org, times in (await latencies(50, silent=0)).items() if int(org) >= 3}


# --------------------------------------------------------------------------------------------------------- failures


class RecordingObserver(NullObserver):
    """An observer that records the ends of records."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        self.events.append((flow, verdict, seconds))

    def dead_letter(self, origin: str, reason: str) -> None:
        self.events.append(("dead", origin, reason))

    def record_parked(self, flow: str, delay: str, reason: str) -> None:
        self.events.append((flow, delay, reason))


async def test_a_transient_failure_is_parked_with_its_history() -> None:
    port, observer = FakePort(), RecordingObserver()
    async with stage(2) as world:
        world.produce("in", "a:1", partition=1)
        await world.start(calling(port, world, observer=observer))
        await world.clock.advance(2)
        await port.end("a:1", Throttled("slow down", 100))
        (parked,) = world.broker.read("retry.1m", 1)

        assert (parked.key, parked.value) == (b"a", b"a:1")
        assert dict(parked.headers)["rent-origin"] == b"in"
        assert int(dict(parked.headers)["rent-due-at"]) == parked.timestamp + 60_000
        assert observer.events == [("f", "parked", 2), ("f", "1m", "throttled")]
        assert world.broker.lag("g") == 0


async def test_what_is_to_be_reported_about_an_integration_is_written_with_the_outcome() -> None:
    """Once, to the partition of the record, and whatever the outcome is."""
    port = FakePort()
    report = HoldReport(org="a", name="pms", version=1, reason="throttled", detail="slow", since=SINCE)
    due = {(b"a", "pms"): [Emit(topics.INTEGRATION_STATUS, "a", report)]}
    flow = CallFlow("f", ("in",), key, port.perform, group_of=lambda found: (found, "pms"))
    async with stage(2) as world:
        for name in ("a:1", "a:2", "b:1"):
            world.produce("in", name, partition=1)
        await world.start(calling(flow, world, reports=lambda group: due.pop(group, ())))
        await port.end("b:1")
        assert world.broker.read(topics.INTEGRATION_STATUS.name) == []
        await port.end("a:1", Throttled("slow", 100))
        await port.end("a:2")
        (written,) = world.broker.read(topics.INTEGRATION_STATUS.name)

        assert (written.partition, written.key) == (1, b"a/pms/hold")
        assert decode(written.value) == report


async def test_a_held_record_is_parked_without_using_up_an_attempt() -> None:
    port, observer = FakePort(), RecordingObserver()
    async with stage() as world:
        world.produce("in", "a:new")
        world.produce("in", "b:old", headers=(("rent-attempt", b"2"), ("rent-first-failed-at", b"5")))
        world.produce("in", "c:tried", headers=(("rent-attempt", b"2"),))
        await world.start(calling(port, world, observer=observer))
        for name in ("a:new", "b:old", "c:tried"):
            await port.end(name, Held(Reason.CIRCUIT_OPEN, "it is unavailable", world.clock.now()))
        parked = {text(one): dict(one.headers).get("rent-attempt") for one in world.broker.read("retry.1m")}
        (dead,) = world.broker.read("dead-letters")

        assert parked == {"a:new": None, "c:tried": b"2"}
        assert (dead.value, dict(dead.headers)["rent-reason"]) == (b"b:old", b"circuit_open")
        assert dict(dead.headers)["rent-attempt"] == b"2"
        assert ("f", "1m", "circuit_open") in observer.events
        assert ("dead", "in", "circuit_open") in observer.events
        assert world.broker.lag("g") == 0


async def test_effects_of_any_outcome_are_produced_once_for_all_records() -> None:
    failed = emit_of("a:failed", TopicSpec("outcomes", ""))
    again = emit_of("a:retry", TopicSpec("due", ""))

    async def fails(records: Sequence[Record]) -> Outcome:
        if text(records[0]) == "a:dead":
            return Dead(Reason.REJECTED, "no", effects=(failed,))
        return Parked(LADDER[0], 1, 1, Reason.THROTTLED, "", (failed,), instead=again)

    async with stage() as world:
        world.produce("in", "a:dead")
        world.produce("in", "b:1", "b:2")
        await world.start(calling(CallFlow("f", ("in",), key, fails, joins=key), world))

        assert world.texts("outcomes") == ["a:failed", "a:failed"]
        assert world.texts("retry.1m") == ["a:retry"]
        assert world.texts("dead-letters") == ["a:dead"]


@pytest.mark.parametrize(
    ("ends", "reason", "detail"),
    [
        (Rejected("no such field", 422), "rejected", "no such field"),
        (Dead(Reason.MALFORMED, "not a record"), "malformed", "not a record"),
        (DecodeError("not a record of ours"), "malformed", "not a record of ours"),
        (ValueError("canary-secret"), "bug", "ValueError at streams/runners/stage.py:"),
        (asyncio.CancelledError(), "bug", "CancelledError at"),
    ],
)
async def test_permanent_failures_are_dead_letters_with_their_reason(
    ends: Rejected | Dead | BaseException, reason: str, detail: str
) -> None:
    port, observer = FakePort(), RecordingObserver()
    async with stage() as world:
        world.produce("in", "a:1")
        await world.start(calling(port, world, observer=observer))
        await port.end("a:1", ends)
        (dead,) = world.broker.read("dead-letters")
        headers = {name: value.decode() for name, value in dead.headers}

        assert dead.value == b"a:1"
        assert headers["rent-reason"] == reason
        assert headers["rent-detail"].startswith(detail)
        assert "canary-secret" not in headers["rent-detail"]
        assert observer.events == [("f", "dead", 0), ("dead", "in", reason)]
        assert world.broker.lag("g") == 0


async def test_a_record_without_a_readable_key_is_passed_to_perform() -> None:
    def broken(_record: Record) -> str:
        raise DecodeError("not a record")

    async def decodes(records: Sequence[Record]) -> Outcome:
        broken(records[0])
        return Done()

    async with stage() as world:
        world.produce("in", "a:1")
        await world.start(calling(CallFlow("f", ("in",), broken, decodes), world))

        assert world.texts("dead-letters") == ["a:1"]


async def test_a_record_with_a_too_large_effect_is_a_dead_letter() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "a:2")
        await world.start(calling(port, world))
        await port.end("a:1", Done((emit_of("a:", body=bytes(9 << 20)),)))
        await port.end("a:2")

        assert world.texts("dead-letters") == ["a:1"]
        assert world.texts("out") == ["a:2"]
        assert world.broker.lag("g") == 0


async def test_an_effect_that_cannot_be_encoded_is_a_bug_of_its_record_only() -> None:
    broken = emit_of("b:bad")
    damaged: dict[str, Any] = {"event": None}
    broken = replace(broken, record=broken.record.model_copy(update=damaged))

    async def odd(records: Sequence[Record]) -> Outcome:
        return Done((broken,)) if any("bad" in text(one) for one in records) else echo(records)

    async with stage() as world:
        world.produce("in", "b:1", "b:bad", "b:2")
        await world.start(calling(CallFlow("f", ("in",), key, odd, joins=key), world))

        assert world.texts("out") == ["b:1", "b:2"]
        assert world.texts("dead-letters") == ["b:bad"]


async def test_bugs_are_held_while_nothing_succeeds() -> None:
    """A broken deployment must not turn a whole topic into dead letters, nor may its restarts."""

    async def perform(_records: Sequence[Record]) -> Outcome:
        raise ValueError

    everything = [f"a:{number}" for number in range(120)]
    async with stage() as world:
        for first in range(0, 120, 10):
            world.produce("in", *everything[first : first + 10])
            process = await world.start(calling(CallFlow("f", ("in",), key, perform), world, guard=None))
            await process.kill()

        assert world.texts("dead-letters") == []
        assert set(world.texts(LADDER[0].topic)) == set(everything)


async def test_bugs_of_one_integration_hold_its_records_and_those_of_the_others_go_on() -> None:
    """Its records come back without having used up an attempt; the flow adds what else has to be written."""
    ended: list[str] = []

    async def broken(records: Sequence[Record]) -> Outcome:
        if text(records[-1]).startswith("a:bad"):
            raise ValueError
        return echo(records)

    def unfinished(record: Record, why: Dead | Held) -> Outcome:
        ended.append(f"{text(record)} {type(why).__name__.lower()}")
        return why if isinstance(why, Dead) else Done()

    flow = CallFlow("f", ("in",), key, broken, group_of=lambda one: one, unfinished=unfinished)
    async with stage() as world:
        world.produce("in", "a:0", *(f"a:bad{number}" for number in range(5)), "b:1")
        await world.start(calling(flow, world))

        assert sorted(world.texts("out")) == ["a:0", "b:1"]
        assert len(world.texts("dead-letters")) in (3, 4)
        assert [one for one in ended if "held" in one][-1] == "a:bad4 held"
        assert world.broker.lag("g") == 0


async def test_what_is_too_large_is_told_to_the_flow() -> None:
    effect = emit_of("org:given up", TopicSpec("added", "what the flow adds"))

    async def perform(records: Sequence[Record]) -> Outcome:
        return echo(records)

    def unfinished(_record: Record, why: Dead | Held) -> Outcome:
        assert isinstance(why, Dead)
        return replace(why, effects=(effect,))

    async with stage() as world:
        world.broker.refuses = lambda record: TooLarge("too large") if record.topic == "out" else None
        world.produce("in", "a:1")
        await world.start(calling(CallFlow("f", ("in",), key, perform, unfinished=unfinished), world))

        assert world.texts("dead-letters") == ["a:1"]
        assert world.texts("added") == ["org:given up"]


async def test_a_record_that_cannot_be_parked_stops_the_process_without_a_commit() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "b:1")
        world.broker.refuses = lambda record: BackendError("full") if record.topic.startswith("retry") else None
        process = await world.start(calling(port, world))
        await port.end("a:1", Unavailable("down"))

        with pytest.raises(BackendError, match="full"):
            raise await process.ended() or AssertionError("it still runs")
        assert port.cancelled == [["b:1"]]
        assert world.broker.committed("g", "in", 0) is None


# ----------------------------------------------------------------------------------- kill, takeover and graceful stop


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=10), st.lists(st.integers(0, 3), max_size=12))
def test_a_kill_at_any_time_loses_nothing(keys: list[str], steps: list[int]) -> None:
    async def scenario() -> None:
        names = [f"{one}:{number}" for number, one in enumerate(keys)]
        async with stage() as world:
            world.produce("in", *names)
            port = FakePort()
            process = await world.start(calling(port, world, max_in_flight=2))
            for step in steps:
                if step == 0:
                    await process.kill()
                    port = FakePort()
                    process = await world.start(calling(port, world, max_in_flight=2))
                elif port.open:
                    await port.end(port.open[step % len(port.open)])
                acknowledged = names[: world.broker.committed("g", "in", 0) or 0]
                assert set(acknowledged) <= set(world.texts("out"))
            while port.open:
                await port.end(port.open[0])

            assert set(world.texts("out")) == set(names)
            assert world.broker.lag("g") == 0

    asyncio.run(scenario())


async def test_a_new_member_takes_over_after_calls_in_flight_have_ended() -> None:
    first, second = FakePort(), FakePort()
    async with stage(2) as world:
        for number in (0, 1):
            world.produce("in", f"{number}:1", f"{number}:2", partition=number)
        await world.start(calling(first, world))
        assert first.open == ["0:1", "1:1"]
        await world.start(calling(second, world))
        assert second.began == []
        await first.end("0:1")
        await first.end("1:1")

        assert first.open == ["0:2"]
        assert second.open == ["1:2"]
        assert world.broker.committed("g", "in", 1) == 1


async def test_calls_that_do_not_end_in_time_are_cancelled_and_repeated_by_the_new_owner() -> None:
    first, second = FakePort(), FakePort()
    async with stage(2) as world:
        world.produce("in", "0:1", partition=0)
        world.produce("in", "1:1", partition=1)
        await world.start(calling(first, world, bounds=Bounds(revoke_within=5)))
        await world.start(calling(second, world))
        await world.clock.advance(4.9)
        assert (first.cancelled, second.began) == ([], [])
        await world.clock.advance(0.1)

        assert sorted(first.cancelled) == [["0:1"], ["1:1"]]
        assert first.open == ["0:1"]
        assert second.open == ["1:1"]
        await second.end("1:1")
        assert world.broker.committed("g", "in", 1) == 1
        assert world.broker.committed("g", "in", 0) is None


async def test_a_graceful_stop_commits_the_calls_that_end() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "a:2", "b:1")
        process = await world.start(calling(port, world, bounds=Bounds(stop_within=20)))
        stopping = asyncio.create_task(process.runner.stop())
        await settle()
        await port.end("a:1")
        assert not stopping.done()
        await world.clock.advance(20)
        await stopping

        assert await process.ended() is None
        assert port.began == [["a:1"], ["b:1"]]
        assert port.cancelled == [["b:1"]]
        assert world.broker.committed("g", "in", 0) == 1


async def test_a_runner_that_was_stopped_before_its_run_does_not_start() -> None:
    async with stage() as world:
        call = Call("g", [CallFlow("f", ("in",), key, done)], MemoryBackend(world.broker), world.clock, LADDER)
        await call.stop()
        await call.run()

        assert call.in_flight == 0


async def test_no_record_is_performed_before_the_seed_has_ended() -> None:
    port, seeded_partitions = FakePort(), list[frozenset[int]]()
    seeded = asyncio.Event()

    async def seed(partitions: frozenset[int]) -> None:
        seeded_partitions.append(partitions)
        await seeded.wait()

    async with stage(2) as world:
        world.produce("in", "a:1", partition=1)
        await world.start(calling(port, world, on_assigned=seed))
        assert (seeded_partitions, port.began) == ([frozenset({0, 1})], [])
        seeded.set()
        await settle()

        assert port.open == ["a:1"]


async def test_a_seed_that_fails_stops_the_process() -> None:
    async def seed(_partitions: frozenset[int]) -> None:
        raise BackendError("no sequence")

    async with stage() as world:
        world.produce("in", "a:1")
        process = await world.start(calling(FakePort(), world, on_assigned=seed))

        assert isinstance(await process.ended(), BackendError)


async def test_an_outage_of_the_broker_loses_nothing() -> None:
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "a:2")
        await world.start(calling(port, world))
        world.broker.go_away()
        await port.end("a:1")
        await world.clock.advance(90)
        assert world.texts("out") == []
        world.broker.come_back()
        await settle()
        await port.end("a:2")

        assert world.texts("out") == ["a:1", "a:2"]
        assert world.broker.lag("g") == 0


async def test_a_shared_producer_is_neither_started_nor_stopped() -> None:
    class Strict:
        """A producer that must not be started or stopped."""

        def __init__(self, backend: Backend) -> None:
            self.send = backend.producer().send

        async def start(self) -> None:
            raise AssertionError

        async def stop(self) -> None:
            raise AssertionError

    async with stage() as world:
        world.produce("in", "a:1")
        flow = CallFlow("f", ("in",), key, done)
        process = await world.start(
            lambda backend: Call("g", [flow], backend, world.clock, LADDER, producer=Strict(backend))
        )
        await process.runner.stop()

        assert await process.ended() is None
        assert world.texts("out") == ["a:1"]


@pytest.mark.parametrize("retries", [True, False])
async def test_a_record_of_a_newer_release_waits_and_its_neighbors_go_on(retries: bool) -> None:
    """Without using up an attempt; what is asked for again without it is left out."""

    async def perform(records: Sequence[Record]) -> Outcome:
        if any(text(record) == "a:new" for record in records):
            raise UnknownWriter("a newer release wrote it")
        return echo(records)

    async with stage() as world:
        world.produce("in", "a:1", "a:new", "a:2")
        flow = CallFlow("f", ("in",), key, perform, joins=key, retries=retries)
        await world.start(calling(flow, world))
        parked = world.broker.read("retry.1m")

        assert world.texts("out") == ["a:1", "a:2"]
        assert [text(record) for record in parked] == ["a:new"] * retries
        assert [dict(record.headers)["rent-reason"] for record in parked] == [b"unknown_writer"] * retries
        assert world.texts("dead-letters") == []
        assert world.broker.lag("g") == 0


async def test_nothing_is_called_while_the_ownership_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a call that begins, nor one that has waited for its turn meanwhile."""
    turn, sent = asyncio.Event(), []

    async def perform(records: Sequence[Record]) -> Outcome:
        await turn.wait()
        await may_call()
        sent.append(text(records[0]))
        return echo(records)

    proven = True
    monkeypatch.setattr(MemoryConsumer, "proven", property(lambda _: proven))
    async with stage() as world:
        world.produce("in", "a:1", "b:2")
        flow = CallFlow("f", ("in",), key, perform, max_in_flight=1)
        await world.start(lambda backend: Call("g", [flow], backend, world.clock, LADDER))
        proven = False
        turn.set()
        await world.clock.advance(30)
        assert sent == []
        proven = True
        await world.clock.advance(1)

        assert sent == ["a:1", "b:2"]


async def test_records_whose_effects_come_too_late_are_left_to_the_next_owner() -> None:
    """The write ends with the ownership; nothing is committed, and the flow goes on."""

    class Late:
        """A producer that loses the ownership once."""

        def __init__(self, backend: Backend) -> None:
            self._send = backend.producer().send
            self._errors: list[Exception] = [NotOwner("given away")]

        async def start(self) -> None: ...

        async def stop(self) -> None: ...

        async def send(self, records: Sequence[ProducerRecord], partition: int | None = None) -> None:
            if self._errors:
                raise self._errors.pop()
            await self._send(records, partition)

    async with stage() as world:
        world.produce("in", "a:1", "b:2")
        flow = CallFlow("f", ("in",), key, done, max_in_flight=1)
        process = await world.start(
            lambda backend: Call("g", [flow], backend, world.clock, LADDER, producer=Late(backend))
        )

        assert world.texts("out") == ["b:2"]
        assert not process.task.done()
        assert world.broker.lag("g") == 2


# ------------------------------------------------------------------------------------------------------------- replays

REPLAYED = ((REPLAY, b"r1"),)


async def test_replayed_records_wait_behind_live_ones() -> None:
    """Of every topic; those of one integration leave all its places to live ones but two of their own."""
    port = FakePort()
    async with stage() as world:
        flow = CallFlow("f", ("in",), key, port.perform, max_in_flight=8, max_in_flight_per_integration=3)
        world.produce("in", *(f"r{number}:1" for number in range(6)), headers=REPLAYED)
        world.produce("in", *(f"l{number}:1" for number in range(6)))
        await world.start(calling(flow, world))
        assert sorted(port.open) == ["l0:1", "l1:1", "l2:1", "r0:1", "r1:1"]
        for number in range(6):
            await port.end(f"l{number}:1")
        for number in range(6):
            await port.end(f"r{number}:1")
        assert [names[0] for names in port.began if names[0][0] == "l"] == [f"l{number}:1" for number in range(6)]
        assert world.broker.lag("g") == 0


async def test_a_live_record_takes_the_replayed_ones_of_its_key_along() -> None:
    port = FakePort()
    async with stage() as world:
        flow = CallFlow("f", ("in",), key, port.perform, joins=lambda _: "all")
        world.produce("in", "a:1")
        await world.start(calling(flow, world))
        world.produce("in", "a:2", headers=REPLAYED)
        world.produce("in", "a:3")
        await settle()
        await port.end("a:1")
        assert port.began == [["a:1"], ["a:3", "a:2"]]
        await port.end("a:3")
        assert world.broker.lag("g") == 0


async def test_replayed_records_that_live_ones_wait_for_become_urgent() -> None:
    port, urged = FakePort(), list[str]()

    async def perform(records: Sequence[Record]) -> Any:
        haste = HASTE.get()
        if haste is not None:
            haste.when_urgent(lambda: urged.append(text(records[0])))
        return await port.perform(records)

    async with stage() as world:
        world.produce("in", "a:1", "b:1", headers=REPLAYED)
        await world.start(calling(CallFlow("f", ("in",), key, perform, max_in_flight=8), world))
        world.produce("in", "b:2", headers=REPLAYED)
        world.produce("in", "c:1")
        await settle()
        assert urged == []
        world.produce("in", "b:3")
        await settle()
        assert urged == ["b:1"]
        for name in ("b:1", "b:3", "a:1", "c:1", "b:2"):
            await port.end(name)
        assert urged == ["b:1"]
        assert world.broker.lag("g") == 0


async def test_how_many_replayed_records_wait_is_known() -> None:
    port = FakePort()
    async with stage() as world:
        calls: list[Call] = []

        def create(backend: MemoryBackend) -> Call:
            made = calling(CallFlow("f", ("in",), key, port.perform, max_in_flight=4), world)(backend)
            assert isinstance(made, Call)
            calls.append(made)
            return made

        world.produce("in", *(f"r{number}:1" for number in range(5)), headers=REPLAYED)
        world.produce("in", "l:1")
        await world.start(create)
        assert calls[0].replayed_waiting == 4
        await port.end("r0:1")
        assert calls[0].replayed_waiting == 3


async def test_a_replayed_record_that_is_parked_or_given_up_stays_one() -> None:
    """So that it waits behind live ones again, and its dead letter names the replay."""
    port = FakePort()
    async with stage() as world:
        world.produce("in", "a:1", "b:1", headers=(*REPLAYED, ("rent-replays", b"2")))
        await world.start(calling(CallFlow("f", ("in",), key, port.perform, max_in_flight=8), world))
        await port.end("a:1", Unavailable("down"))
        await port.end("b:1", Rejected("no"))
        (parked,), (dead,) = world.broker.read("retry.1m"), world.broker.read(topics.DEAD_LETTERS.name)
        for one in (parked, dead):
            assert is_replayed(one.headers)
            assert History.read(one.headers).replays == 2


async def test_what_is_asked_for_again_is_left_out_when_too_many_have_failed() -> None:
    """It does not come back from a rung, which would find no topic for it."""

    async def bad(_records: Sequence[Record]) -> Outcome:
        raise DecodeError("not a record of ours")

    async with stage() as world:
        world.produce("in", "a:1", "b:1", "c:1", "d:1", "e:1")
        guard = DeadLetterGuard(3)
        guard.succeeded()
        await world.start(calling(CallFlow("f", ("in",), key, bad, retries=False), world, guard=guard))

        assert len(world.texts("dead-letters")) == 3
        assert world.texts(LADDER[0].topic) == []
        assert world.broker.lag("g") == 0


async def test_a_record_on_another_partition_than_its_orgs_is_not_performed() -> None:
    port = FakePort()
    home = partition_for("a", 3)
    async with stage(3) as world:
        for partition in range(3):
            world.produce("in", "a:1", partition=partition)
        flow = CallFlow("f", ("in",), lambda _record: ("a",), port.perform)
        await world.start(calling(flow, world, partitions=3))
        assert port.open == ["a:1"]
        await port.end("a:1")

        letters = world.broker.read("dead-letters")
        assert sorted(one.partition for one in letters) == sorted({0, 1, 2} - {home})
        assert {dict(one.headers)["rent-reason"] for one in letters} == {b"misplaced"}
        assert world.broker.lag("g") == 0
