"""Call: order, priorities, acknowledgement and what becomes of failures, in a world in memory."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.ports import Rejected, Throttled, Unavailable
from schemas import retry as header
from schemas.codec import DecodeError
from schemas.pms import FetchRequest
from schemas.topics import TopicSpec
from streams.backends.memory import MemoryBackend, settle
from streams.backends.ports import Backend, BackendError
from streams.core.flows import Emit, Record
from streams.core.observer import NullObserver
from streams.core.retry import Dead, DeadLetterLimit, Done, Held, Outcome, Parked, Reason, TooManyDead, ladder
from streams.runners.call import Call, CallFlow
from streams.runners.intake import Bounds
from tests.streams.runners.stage import OUT, Outside, Shell, Stage, echo, emit_of, key, stage, text

LADDER = ladder("1m,2m")


def calling(
    flow: CallFlow | Outside | Sequence[CallFlow], world: Stage, **more: Any
) -> Callable[[MemoryBackend], Shell]:
    """Make a call of this flow; an outside stands for the usual one."""
    most = more.pop("max_in_flight", 10)
    flows = [CallFlow("f", ("in",), key, flow.perform, max_in_flight=most)] if isinstance(flow, Outside) else flow
    return lambda log: Call("g", [flows] if isinstance(flows, CallFlow) else flows, log, world.clock, LADDER, **more)


async def done(records: Sequence[Record]) -> Outcome:
    return echo(records)


# ----------------------------------------------------------------------------------------- order and acknowledgement


async def test_what_follows_is_durable_in_the_same_partition_before_the_record_is_acknowledged() -> None:
    async with stage(3) as world:
        world.say("in", "org:1", partition=2)
        world.broker.refuses = lambda _: BackendError("full") if world.broker.committed("g", "in", 2) else None
        await world.start(calling(CallFlow("f", ("in",), key, done), world))

        assert world.said("out", 2) == ["org:1"]
        assert world.broker.committed("g", "in", 2) == 1
        assert world.broker.lag("g") == 0


async def test_one_key_goes_in_order_and_different_keys_at_the_same_time() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", "a:1", "a:2", "b:1", "a:3")
        await world.start(calling(outside, world))
        assert outside.open == ["a:1", "b:1"]
        await outside.end("a:1")
        await outside.end("a:2")

        assert outside.began == [["a:1"], ["b:1"], ["a:2"], ["a:3"]]


async def test_no_more_are_in_flight_than_the_bound() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", *(f"{number}:" for number in range(9)))
        await world.start(calling(outside, world, max_in_flight=3))
        assert len(outside.open) == 3
        await outside.end("1:")

        assert outside.open == ["0:", "2:", "3:"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=14), st.randoms(use_true_random=False), st.integers(1, 6))
def test_only_the_contiguous_finished_prefix_is_ever_committed(
    keys: list[str], chance: random.Random, most: int
) -> None:
    async def play() -> None:
        outside = Outside()
        names = [f"{one}:{number}" for number, one in enumerate(keys)]
        finished: set[str] = set()
        async with stage() as world:
            world.say("in", *names)
            await world.start(
                calling(outside, world, max_in_flight=most, bounds=Bounds(hold_records=4, fetch_records=3))
            )
            while outside.open:
                assert len(outside.open) <= most
                name = chance.choice(outside.open)
                await outside.end(name)
                finished.add(name)
                prefix = next((at for at, one in enumerate(names) if one not in finished), len(names))
                assert world.broker.committed("g", "in", 0) == (prefix or None)
            assert finished == set(names)
            for one in set(keys):
                of_key = [name for name in names if name.startswith(one)]
                assert [name for name in world.said("out") if name.startswith(one)] == of_key

    asyncio.run(play())


async def test_a_backlog_does_not_fill_the_memory() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", *("a:" for _ in range(100)))
        process = await world.start(calling(outside, world, bounds=Bounds(hold_records=10, fetch_records=10)))
        call = process.shell
        assert isinstance(call, Call)
        assert call._lanes.waiting < 10
        for _ in range(100):
            await outside.end("a:")
            assert call._lanes.waiting < 20

        assert world.broker.lag("g") == 0
        assert call.settled


async def test_bytes_are_bounded_as_well_as_records() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", *("a:" + "x" * 100 for _ in range(50)))
        process = await world.start(calling(outside, world, bounds=Bounds(hold_bytes=300, fetch_records=2)))
        assert isinstance(process.shell, Call)

        assert process.shell._lanes.waiting + 1 == 4


# ------------------------------------------------------------------------------------------------------- coalescing


async def test_what_waits_together_is_done_together_and_what_comes_later_waits_for_the_next() -> None:
    outside = Outside()
    flow = CallFlow("f", ("in",), key, outside.perform, joins=key)
    async with stage() as world:
        world.say("in", "a:1")
        await world.start(calling(flow, world))
        world.say("in", "a:2", "b:1", "a:3")
        await settle()
        await outside.end("a:1")
        world.say("in", "a:4")
        await settle()
        await outside.end("a:2")
        await outside.end("a:4")
        assert world.broker.committed("g", "in", 0) == 2
        await outside.end("b:1")

        assert outside.began == [["a:1"], ["b:1"], ["a:2", "a:3"], ["a:4"]]
        assert world.broker.lag("g") == 0


async def test_of_those_done_together_each_is_parked_by_its_own_attempts() -> None:
    async def fails(_records: Sequence[Record]) -> Unavailable:
        return Unavailable("down", 503)

    async with stage() as world:
        world.say("in", "a:old", headers=((header.ATTEMPT, b"2"),))
        world.say("in", "a:older", headers=((header.ATTEMPT, b"1"),))
        world.say("in", "a:new")
        await world.start(calling(CallFlow("f", ("in",), key, fails, joins=key), world))

        assert world.said("dead-letters") == ["a:old"]
        assert world.said("retry.2m") == ["a:older"]
        assert world.said("retry.1m") == ["a:new"]
        assert world.broker.lag("g") == 0


async def test_one_record_that_meets_a_bug_does_not_take_the_others_along() -> None:
    async def picky(records: Sequence[Record]) -> Outcome:
        if any("bad" in text(one) for one in records):
            raise KeyError("bad")
        return echo(records)

    async with stage() as world:
        world.say("in", "a:1", "a:bad", "a:2")
        await world.start(calling(CallFlow("f", ("in",), key, picky, joins=key), world))

        assert world.said("out") == ["a:1", "a:2"]
        assert world.said("dead-letters") == ["a:bad"]
        assert world.broker.lag("g") == 0


# ------------------------------------------------------------------------------------------------------- priorities


def ranked(outside: Outside, most: int = 10) -> CallFlow:
    return CallFlow("f", ("commands", "notices", "sweeps"), key, outside.perform, max_in_flight=most)


async def test_the_first_topic_goes_first_whatever_came_before() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("sweeps", "a:s1", "b:s2", "c:s3")
        await world.start(calling(ranked(outside, 1), world))
        world.say("notices", "d:n1")
        world.say("commands", "e:c1")
        world.say("notices", "b:n2")
        await settle()
        while outside.open:
            await outside.end(outside.open[0])

        assert [name for (name,) in outside.began] == ["a:s1", "e:c1", "d:n1", "b:n2", "c:s3", "b:s2"]


async def test_lower_topics_leave_a_slot_to_those_above_them() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("sweeps", *(f"{number}:s" for number in range(5)))
        await world.start(calling(ranked(outside, 4), world))
        assert len(outside.open) == 2
        world.say("notices", "x:n", "y:n")
        world.say("commands", "z:c", "w:c")
        await settle()

        assert outside.open == ["0:s", "1:s", "z:c", "w:c"]


async def test_a_backlog_below_holds_up_nothing_above() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("sweeps", *("a:s" for number in range(100)))
        await world.start(calling(ranked(outside), world, bounds=Bounds(hold_records=5, fetch_records=5)))
        world.say("commands", "b:c")
        await settle()

        assert outside.open == ["a:s", "b:c"]


def test_a_topic_has_one_reader() -> None:
    flow = CallFlow("f", ("in",), key, done)

    with pytest.raises(ValueError, match="one reader"):
        Call("g", [flow, flow], MemoryBackend(Stage().broker), Stage().clock, LADDER)


# ----------------------------------------------------------------------------------------------------- fair shares


async def latencies(orgs: int, silent: int, seconds: int = 60) -> dict[str, list[int]]:
    """Return by org the milliseconds from a record to what follows from it; some orgs are never answered.

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
            world.say("in", *(f"{org}:{second}" for org in range(orgs)))
            await world.clock.advance(1)

        sent = {text(record): record.timestamp for record in world.broker.read("in")}
        found: dict[str, list[int]] = {}
        for record in world.broker.read("out"):
            found.setdefault(text(record).partition(":")[0], []).append(record.timestamp - sent[text(record)])
        return found


async def test_integrations_that_never_answer_cost_the_others_nothing() -> None:
    """Three of fifty; what the others finish behind the silent ones' first records is more than is held unfinished."""
    found = await latencies(50, silent=3)

    assert sorted(found) == sorted(str(org) for org in range(3, 50))
    assert sum(map(len, found.values())) == 47 * 60 > Bounds().hold_records
    assert found == {org: times for org, times in (await latencies(50, silent=0)).items() if int(org) >= 3}


# --------------------------------------------------------------------------------------------- what becomes of failures


class Counts(NullObserver):
    """An observer that remembers."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def record_ended(self, flow: str, verdict: str, seconds: float) -> None:
        self.said.append((flow, verdict, seconds))

    def dead_letter(self, origin: str, reason: str) -> None:
        self.said.append(("dead", origin, reason))

    def record_parked(self, flow: str, delay: str, reason: str) -> None:
        self.said.append((flow, delay, reason))


async def test_a_failure_that_may_pass_is_parked_with_its_history() -> None:
    outside, counts = Outside(), Counts()
    async with stage(2) as world:
        world.say("in", "a:1", partition=1)
        await world.start(calling(outside, world, observer=counts))
        await world.clock.advance(2)
        await outside.end("a:1", Throttled("slow down", 100))
        (parked,) = world.broker.read("retry.2m", 1)

        assert (parked.key, parked.value) == (b"a", b"a:1")
        assert dict(parked.headers)[header.ORIGIN] == b"in"
        assert int(dict(parked.headers)[header.DUE_AT]) == parked.timestamp + 120_000
        assert counts.said == [("f", "parked", 2), ("f", "2m", "throttled")]
        assert world.broker.lag("g") == 0


async def test_what_is_held_is_parked_with_the_attempts_that_it_had() -> None:
    outside, counts = Outside(), Counts()
    async with stage() as world:
        world.say("in", "a:new")
        world.say("in", "b:old", headers=((header.ATTEMPT, b"2"), (header.FIRST_FAILED_AT, b"5")))
        world.say("in", "c:tried", headers=((header.ATTEMPT, b"2"),))
        await world.start(calling(outside, world, observer=counts))
        for name in ("a:new", "b:old", "c:tried"):
            await outside.end(name, Held(Reason.CIRCUIT_OPEN, "it does not answer", world.clock.now()))
        parked = {text(one): dict(one.headers)[header.ATTEMPT] for one in world.broker.read("retry.1m")}
        (dead,) = world.broker.read("dead-letters")

        assert parked == {"a:new": b"0", "c:tried": b"2"}
        assert (dead.value, dict(dead.headers)[header.REASON]) == (b"b:old", b"circuit_open")
        assert dict(dead.headers)[header.ATTEMPT] == b"2"
        assert ("f", "1m", "circuit_open") in counts.said
        assert ("dead", "in", "circuit_open") in counts.said
        assert world.broker.lag("g") == 0


async def test_effects_come_along_with_any_verdict_and_once_for_all_records() -> None:
    failed = emit_of("a:failed", TopicSpec("outcomes", ""))
    again = emit_of("a:look again", TopicSpec("due", ""))

    async def fails(records: Sequence[Record]) -> Outcome:
        if text(records[0]) == "a:dead":
            return Dead(Reason.REJECTED, "no", effects=(failed,))
        return Parked(LADDER[0], 1, 1, Reason.THROTTLED, "", (failed,), instead=again)

    async with stage() as world:
        world.say("in", "a:dead")
        world.say("in", "b:1", "b:2")
        await world.start(calling(CallFlow("f", ("in",), key, fails, joins=key), world))

        assert world.said("outcomes") == ["a:failed", "a:failed"]
        assert world.said("retry.1m") == ["a:look again"]
        assert world.said("dead-letters") == ["a:dead"]


@pytest.mark.parametrize(
    ("ends", "reason", "detail"),
    [
        (Rejected("no such field", 422), "rejected", "no such field"),
        (Dead(Reason.MALFORMED, "not ours"), "malformed", "not ours"),
        (DecodeError("not a record of ours"), "malformed", "not a record of ours"),
        (ValueError("canary-secret"), "bug", "ValueError at streams/runners/stage.py:"),
        (asyncio.CancelledError(), "bug", "CancelledError at"),
    ],
)
async def test_what_cannot_be_mended_by_waiting_is_given_up_with_its_reason(
    ends: Rejected | Dead | BaseException, reason: str, detail: str
) -> None:
    outside, counts = Outside(), Counts()
    async with stage() as world:
        world.say("in", "a:1")
        await world.start(calling(outside, world, observer=counts))
        await outside.end("a:1", ends)
        (dead,) = world.broker.read("dead-letters")
        headers = {name: value.decode() for name, value in dead.headers}

        assert dead.value == b"a:1"
        assert headers[header.REASON] == reason
        assert headers[header.DETAIL].startswith(detail)
        assert "canary-secret" not in headers[header.DETAIL]
        assert counts.said == [("f", "dead", 0), ("dead", "in", reason)]
        assert world.broker.lag("g") == 0


async def test_a_record_whose_key_cannot_be_told_is_judged_by_perform() -> None:
    def broken(_record: Record) -> str:
        raise DecodeError("not ours")

    async def decodes(records: Sequence[Record]) -> Outcome:
        broken(records[0])
        return Done()

    async with stage() as world:
        world.say("in", "a:1")
        await world.start(calling(CallFlow("f", ("in",), broken, decodes), world))

        assert world.said("dead-letters") == ["a:1"]


async def test_what_follows_but_does_not_fit_is_given_up() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", "a:1", "a:2")
        await world.start(calling(outside, world))
        await outside.end("a:1", Done((emit_of("a:", body=bytes(9 << 20)),)))
        await outside.end("a:2")

        assert world.said("dead-letters") == ["a:1"]
        assert world.said("out") == ["a:2"]
        assert world.broker.lag("g") == 0


async def test_what_follows_but_cannot_be_encoded_is_a_bug_and_takes_no_other_record_along() -> None:
    damaged: dict[str, Any] = {"org": "b", "connection": "c", "event": None}
    broken = Emit(OUT, "b", FetchRequest.model_construct(**damaged))

    async def odd(records: Sequence[Record]) -> Outcome:
        return Done((broken,)) if any("bad" in text(one) for one in records) else echo(records)

    async with stage() as world:
        world.say("in", "b:1", "b:bad", "b:2")
        await world.start(calling(CallFlow("f", ("in",), key, odd, joins=key), world))

        assert world.said("out") == ["b:1", "b:2"]
        assert world.said("dead-letters") == ["b:bad"]


async def test_a_run_of_bugs_stops_the_flow_instead_of_draining_the_topic() -> None:
    async def broken(_records: Sequence[Record]) -> Outcome:
        raise ValueError

    async with stage() as world:
        world.say("in", *(f"a:{number}" for number in range(10)))
        process = await world.start(calling(CallFlow("f", ("in",), key, broken), world, limit=DeadLetterLimit(3)))

        assert isinstance(await process.ended(), TooManyDead)
        assert world.said("dead-letters") == ["a:0", "a:1"]
        assert (world.broker.committed("g", "in", 0) or 0) <= 2


async def test_what_cannot_even_be_parked_stops_the_process_and_is_not_acknowledged() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", "a:1", "b:1")
        world.broker.refuses = lambda record: BackendError("full") if record.topic.startswith("retry") else None
        process = await world.start(calling(outside, world))
        await outside.end("a:1", Unavailable("down"))

        with pytest.raises(BackendError, match="full"):
            raise await process.ended() or AssertionError("it still runs")
        assert outside.cancelled == [["b:1"]]
        assert world.broker.committed("g", "in", 0) is None


# ----------------------------------------------------------------------------------- kill, takeover and graceful stop


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=10), st.lists(st.integers(0, 3), max_size=12))
def test_a_kill_at_any_moment_loses_nothing(keys: list[str], steps: list[int]) -> None:
    async def play() -> None:
        names = [f"{one}:{number}" for number, one in enumerate(keys)]
        async with stage() as world:
            world.say("in", *names)
            outside = Outside()
            process = await world.start(calling(outside, world, max_in_flight=2))
            for step in steps:
                if step == 0:
                    await process.kill()
                    outside = Outside()
                    process = await world.start(calling(outside, world, max_in_flight=2))
                elif outside.open:
                    await outside.end(outside.open[step % len(outside.open)])
                acknowledged = names[: world.broker.committed("g", "in", 0) or 0]
                assert set(acknowledged) <= set(world.said("out"))
            while outside.open:
                await outside.end(outside.open[0])

            assert set(world.said("out")) == set(names)
            assert world.broker.lag("g") == 0

    asyncio.run(play())


async def test_a_new_member_takes_over_after_what_is_in_flight_has_ended() -> None:
    first, second = Outside(), Outside()
    async with stage(2) as world:
        for number in (0, 1):
            world.say("in", f"{number}:1", f"{number}:2", partition=number)
        await world.start(calling(first, world))
        assert first.open == ["0:1", "1:1"]
        await world.start(calling(second, world))
        assert second.began == []
        await first.end("0:1")
        await first.end("1:1")

        assert first.open == ["0:2"]
        assert second.open == ["1:2"]
        assert world.broker.committed("g", "in", 1) == 1


async def test_what_does_not_end_in_time_is_cancelled_and_done_again_by_the_new_owner() -> None:
    first, second = Outside(), Outside()
    async with stage(2) as world:
        world.say("in", "0:1", partition=0)
        world.say("in", "1:1", partition=1)
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


async def test_a_graceful_stop_begins_nothing_more_and_commits_what_ends() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", "a:1", "a:2", "b:1")
        process = await world.start(calling(outside, world, bounds=Bounds(stop_within=20)))
        stopping = asyncio.create_task(process.shell.stop())
        await settle()
        await outside.end("a:1")
        assert not stopping.done()
        await world.clock.advance(20)
        await stopping

        assert await process.ended() is None
        assert outside.began == [["a:1"], ["b:1"]]
        assert outside.cancelled == [["b:1"]]
        assert world.broker.committed("g", "in", 0) == 1


async def test_stopped_before_it_ran_it_does_not_begin() -> None:
    async with stage() as world:
        call = Call("g", [CallFlow("f", ("in",), key, done)], MemoryBackend(world.broker), world.clock, LADDER)
        await call.stop()
        await call.run()

        assert call.in_flight == 0


async def test_nothing_is_performed_before_the_seed_is_there() -> None:
    outside, told = Outside(), list[frozenset[int]]()
    seeded = asyncio.Event()

    async def seed(partitions: frozenset[int]) -> None:
        told.append(partitions)
        await seeded.wait()

    async with stage(2) as world:
        world.say("in", "a:1", partition=1)
        await world.start(calling(outside, world, on_assigned=seed))
        assert (told, outside.began) == ([frozenset({0, 1})], [])
        seeded.set()
        await settle()

        assert outside.open == ["a:1"]


async def test_a_seed_that_fails_stops_the_process() -> None:
    async def seed(_partitions: frozenset[int]) -> None:
        raise BackendError("no sequence")

    async with stage() as world:
        world.say("in", "a:1")
        process = await world.start(calling(Outside(), world, on_assigned=seed))

        assert isinstance(await process.ended(), BackendError)


async def test_a_broker_that_is_away_for_a_while_is_survived() -> None:
    outside = Outside()
    async with stage() as world:
        world.say("in", "a:1", "a:2")
        await world.start(calling(outside, world))
        world.broker.go_away()
        await outside.end("a:1")
        await world.clock.advance(90)
        assert world.said("out") == []
        world.broker.come_back()
        await settle()
        await outside.end("a:2")

        assert world.said("out") == ["a:1", "a:2"]
        assert world.broker.lag("g") == 0


async def test_a_producer_may_be_shared_and_is_then_left_alone() -> None:
    class Strict:
        """Takes records, and nobody may start or stop it."""

        def __init__(self, log: Backend) -> None:
            self.send = log.producer().send

        async def start(self) -> None:
            raise AssertionError

        async def stop(self) -> None:
            raise AssertionError

    async with stage() as world:
        world.say("in", "a:1")
        flow = CallFlow("f", ("in",), key, done)
        process = await world.start(lambda log: Call("g", [flow], log, world.clock, LADDER, producer=Strict(log)))
        await process.shell.stop()

        assert await process.ended() is None
        assert world.said("out") == ["a:1"]
