from streams.engine.fatal import Exit
from streams.engine.watchdog import PartitionState, Vitals, Watchdog

TP = ("events", 3)


def dog() -> Watchdog:
    return Watchdog(stuck_after=100, stalled_after=50)


def state(done: int | None = 5, position: int | None = 9, end: int | None = 20, waiting: int = 1) -> PartitionState:
    return PartitionState(done=done, delivered=8, position=position, end=end, waiting=waiting)


def codes(watchdog: Watchdog, *looks: tuple[float, Vitals]) -> list[Exit | None]:
    verdicts = [watchdog.look(vitals, now) for now, vitals in looks]
    return [verdict[0] if verdict else None for verdict in verdicts]


def test_all_is_well() -> None:
    assert codes(dog(), (0, Vitals()), (1000, Vitals())) == [None, None]


def test_an_error_of_the_group_that_stays_is_fatal() -> None:
    failed = Vitals(group_error="UnknownError")

    assert codes(dog(), (0, failed), (2, failed), (3, failed)) == [None, None, Exit.GROUP_FAILED]
    assert codes(dog(), (0, failed), (2, Vitals()), (4, failed)) == [None, None, None]


def test_a_rebalance_without_progress_is_fatal() -> None:
    still, more = Vitals(moving=True, progress=(1, 0)), Vitals(moving=True, progress=(1, 500))

    assert codes(dog(), (0, still), (99, still), (100, still)) == [None, None, Exit.STUCK]
    assert codes(dog(), (0, still), (99, more), (150, more)) == [None, None, None]


def test_two_rebalances_do_not_add_up() -> None:
    still = Vitals(moving=True)

    assert codes(dog(), (0, still), (60, Vitals()), (120, still)) == [None, None, None]


def test_records_that_nobody_works_on_are_fatal() -> None:
    waiting = Vitals(states={TP: state()})
    watchdog = dog()

    assert codes(watchdog, (0, waiting), (49, waiting)) == [None, None]
    verdict = watchdog.look(waiting, 50)
    assert verdict is not None
    assert verdict[0] is Exit.STALLED
    assert "events-3" in verdict[1]


def test_records_that_nobody_fetches_are_fatal() -> None:
    unread = Vitals(states={TP: state(waiting=0)})

    assert codes(dog(), (0, unread), (50, unread)) == [None, Exit.STALLED]


def test_progress_and_idleness_are_no_stall() -> None:
    before, after = Vitals(states={TP: state(done=5)}), Vitals(states={TP: state(done=9)})
    idle = Vitals(states={TP: state(position=20, waiting=0)})

    assert codes(dog(), (0, before), (49, after), (90, after)) == [None, None, None]
    assert codes(dog(), (0, idle), (60, idle), (120, idle)) == [None, None, None]


def test_a_rebalance_begins_the_count_anew() -> None:
    waiting = Vitals(states={TP: state()})

    assert codes(dog(), (0, waiting), (40, Vitals(moving=True)), (60, waiting)) == [None, None, None]


def test_a_blocked_loop_and_a_silent_consumer_are_fatal() -> None:
    assert codes(dog(), (0, Vitals(beat_age=51))) == [Exit.STALLED]
    assert codes(dog(), (0, Vitals(answer_age=51))) == [Exit.STALLED]
    assert codes(dog(), (0, Vitals(answer_age=51, moving=True))) == [None]


def test_a_blocked_loop_is_not_blamed_on_the_consumer() -> None:
    assert codes(dog(), (0, Vitals(answer_age=51, beat_age=40))) == [None]


def test_unknown_ends_are_no_reason() -> None:
    unknown = Vitals(states={TP: state(position=None, waiting=0), ("events", 4): state(end=None, waiting=0)})

    assert codes(dog(), (0, unknown), (500, unknown)) == [None, None]
