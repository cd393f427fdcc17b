import threading

from streams.engine.fatal import Exit
from streams.engine.watchdog import PartitionVitals, Ticks, Vitals, Watchdog

TP = ("events", 3)


def watchdog() -> Watchdog:
    return Watchdog(stuck_after=100, stalled_after=50)


def partition(
    done: int | None = 5, position: int | None = 9, end: int | None = 20, waiting: int = 1
) -> PartitionVitals:
    return PartitionVitals(done=done, delivered=8, position=position, end=end, waiting=waiting)


def codes(looking: Watchdog, *looks: tuple[float, Vitals]) -> list[Exit | None]:
    verdicts = [looking.look(vitals, now) for now, vitals in looks]
    return [verdict[0] if verdict else None for verdict in verdicts]


def test_a_healthy_worker_has_no_problem() -> None:
    assert codes(watchdog(), (0, Vitals()), (1000, Vitals())) == [None, None]


def test_a_persistent_error_of_the_group_is_fatal() -> None:
    failed = Vitals(group_error="UnknownError")

    assert codes(watchdog(), (0, failed), (2, failed), (3, failed)) == [None, None, Exit.GROUP_FAILED]
    assert codes(watchdog(), (0, failed), (2, Vitals()), (4, failed)) == [None, None, None]


def test_a_rebalance_without_progress_is_fatal() -> None:
    still, more = Vitals(moving=True, progress=(1, 0)), Vitals(moving=True, progress=(1, 500))

    assert codes(watchdog(), (0, still), (99, still), (100, still)) == [None, None, Exit.STUCK]
    assert codes(watchdog(), (0, still), (99, more), (150, more)) == [None, None, None]


def test_two_rebalances_do_not_add_up() -> None:
    still = Vitals(moving=True)

    assert codes(watchdog(), (0, still), (60, Vitals()), (120, still)) == [None, None, None]


def test_records_that_are_not_processed_are_fatal() -> None:
    waiting = Vitals(partitions={TP: partition()})
    looking = watchdog()

    assert codes(looking, (0, waiting), (49, waiting)) == [None, None]
    verdict = looking.look(waiting, 50)
    assert verdict is not None
    assert verdict[0] is Exit.STALLED
    assert "events-3" in verdict[1]


def test_records_that_are_not_fetched_are_fatal() -> None:
    unread = Vitals(partitions={TP: partition(waiting=0)})

    assert codes(watchdog(), (0, unread), (50, unread)) == [None, Exit.STALLED]


def test_progress_and_idleness_are_no_stall() -> None:
    before, after = Vitals(partitions={TP: partition(done=5)}), Vitals(partitions={TP: partition(done=9)})
    idle = Vitals(partitions={TP: partition(position=20, waiting=0)})

    assert codes(watchdog(), (0, before), (49, after), (90, after)) == [None, None, None]
    assert codes(watchdog(), (0, idle), (60, idle), (120, idle)) == [None, None, None]


def test_a_partition_may_wait_for_its_turn_while_others_of_its_topic_are_processed() -> None:
    """Longer than usual, but not forever; another topic is no reason to wait."""

    def vitals(number: int, topic: str) -> Vitals:
        return Vitals(partitions={TP: partition(), (topic, 7): partition(done=number, waiting=0)})

    same = [(at, vitals(at, TP[0])) for at in range(0, 201, 20)]
    assert codes(watchdog(), *same) == [None] * 10 + [Exit.STALLED]
    assert codes(watchdog(), *[(at, vitals(at, "other")) for at in (0, 20, 40, 60)])[-1] is Exit.STALLED
    assert codes(watchdog(), *same[:3], *[(at, vitals(40, TP[0])) for at in (60, 80, 100)])[-1] is Exit.STALLED


def test_a_rebalance_restarts_the_count() -> None:
    waiting = Vitals(partitions={TP: partition()})

    assert codes(watchdog(), (0, waiting), (40, Vitals(moving=True)), (60, waiting)) == [None, None, None]


def test_a_blocked_loop_and_a_silent_consumer_are_fatal() -> None:
    assert codes(watchdog(), (0, Vitals(beat_age=51))) == [Exit.STALLED]
    assert codes(watchdog(), (0, Vitals(answer_age=51))) == [Exit.STALLED]
    assert codes(watchdog(), (0, Vitals(answer_age=51, moving=True))) == [None]


def test_a_blocked_loop_is_reported_as_the_cause_of_a_silent_consumer() -> None:
    assert codes(watchdog(), (0, Vitals(answer_age=51, beat_age=40))) == [None]


def test_unknown_end_offsets_are_ignored() -> None:
    unknown = Vitals(
        partitions={TP: partition(position=None, waiting=0), ("events", 4): partition(end=None, waiting=0)}
    )

    assert codes(watchdog(), (0, unknown), (500, unknown)) == [None, None]


def test_work_that_outlives_its_ownership_is_fatal() -> None:
    assert codes(watchdog(), (0, Vitals(overdue="a rebalance began", moving=True))) == [Exit.NOT_OWNER]


def test_it_looks_regularly_in_a_thread_of_its_own() -> None:
    looked: list[str] = []
    twice = threading.Event()

    def look() -> None:
        looked.append(threading.current_thread().name)
        if len(looked) == 2:
            twice.set()

    ticks = Ticks(look)
    ticks.start()

    assert twice.wait(10)
    ticks.stop()
    assert set(looked) == {"engine-watchdog"}
