"""The engine: folds, scans and services are declared on it, and `Engine.run` runs them as one group member."""
# ruff: noqa: SLF001 - see consumer.py

import asyncio
import contextlib
import gc
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from streams.backends.membership import Membership
from streams.core.flows import RecordBatch, Step, View
from streams.core.observer import NullObserver, Observer
from streams.engine.agents import EngineContext, Fold, FoldAgent
from streams.engine.app import App
from streams.engine.fatal import Exit, Fatal
from streams.engine.output import Output
from streams.engine.rebuild import Rebuilds
from streams.engine.scans import Scan, ScanFunction, ScanTask
from streams.engine.settings import EngineSettings
from streams.engine.standby import Standbys
from streams.engine.stores import PartitionStore, RocksMemory, new_store
from streams.engine.tables import TableHandle
from streams.engine.watchdog import Ticks, Watchdog

log = logging.getLogger("streams.engine")

BEAT = 0.5
"""Seconds between two beats of the event loop."""
PROBE = 5.0
"""Seconds between two requests to the broker for the ends of topics."""


_VERBOSE = ("aiokafka", "faust", "mode", "streams.engine.app", "streams.engine.consumer", "streams.engine.tables")
"""Loggers of libraries (mode names a service's logger after its module): warnings only, unless a level is set."""


class EngineCrashed(RuntimeError):  # noqa: N818
    """A part of the engine, or one of its services, crashed; the cause is attached."""


@dataclass(frozen=True, slots=True)
class Status:
    """The condition of a worker, for probes in other threads."""

    started: bool
    recovered: bool
    """Whether tables are complete and partitions do not move, so that folds run."""
    moving: bool
    """Whether a rebalance or recovery is under way, or the first one has not ended."""
    stopping: bool
    partitions: frozenset[int]
    heartbeat_age: float
    """Seconds since the event loop last ran."""
    lag: int | None
    """Records of owned partitions that are not finished, as of the last probe."""
    reason: str | None
    """Why the process is about to end itself, or has crashed."""

    @property
    def ready(self) -> bool:
        return self.recovered and not self.stopping and self.reason is None


class Background(Protocol):
    """Runs beside the engine, from before it joins the group until after it has left it."""

    async def run(self) -> None:
        """Run until stopped. What it raises is a crash of the worker, and so is an end before `stop`."""
        ...

    async def ready(self) -> None:
        """Return when the engine may join the group."""
        ...

    async def stop(self) -> None:
        """Return when `run` has ended."""
        ...


class Engine:
    """Collects declarations, then runs them. Faust's objects are made in `run`, so that they get its event loop."""

    def __init__(
        self, settings: EngineSettings, observer: Observer | None = None, *, fatal: Fatal | None = None
    ) -> None:
        self.settings = settings
        self._observer: Observer = observer or NullObserver()
        self._fatal = fatal or Fatal(self._observer.worker_failed)
        self._tables: dict[str, TableHandle] = {}
        self._folds: dict[str, Fold] = {}
        self._scans: dict[str, Scan] = {}
        self._factories: list[Callable[[], Any]] = []
        self._when_moving: list[Callable[[bool], None]] = []
        self._background: list[Background] = []
        self._stores: dict[str, PartitionStore] = {}
        self._by_changelog: dict[str, PartitionStore] = {}
        self._standbys = Standbys(settings, self._by_changelog, self._observer)
        self._app: App | None = None
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat = time.monotonic()
        self._asked: float | None = None
        self._lag: int | None = None
        self._stopping = False
        self._crash: BaseException | None = None

    # ----------------------------------------------------------------------------------------------------- declaring

    def table(self, name: str) -> TableHandle:
        """Declare a table of bytes to bytes; exactly one fold writes it."""
        self._refuse_when_running()
        if name in self._tables:
            raise ValueError(f"table {name} is declared twice")
        handle = TableHandle(name, f"{self.settings.app_id}-{name}-changelog")
        self._tables[name] = handle
        return handle

    def fold(
        self,
        name: str,
        topics: Sequence[str],
        table: TableHandle,
        step: Callable[[RecordBatch, Mapping[str, View]], Step],
        reads: Sequence[TableHandle] = (),
        *,
        batch_size: int | None = None,
    ) -> None:
        """Declare that ``step`` turns records of ``topics`` into rows of ``table`` and effects.

        ``step`` gets its own table and those of ``reads``, by name, as of the batch's partition. If it raises, the
        worker ends (71) and the next owner processes the batch again: a bad record is for the step to handle.
        ``batch_size``: records of one batch at most, for steps in which one record may cause much work.
        """
        self._refuse_when_running()
        if name in self._folds:
            raise ValueError(f"fold {name} is declared twice")
        if not topics:
            raise ValueError(f"fold {name} has no topics")
        for other in self._folds.values():
            if other.table == table:
                raise ValueError(f"table {table.name} has two writers: {other.name} and {name}")
        self._folds[name] = Fold(name, tuple(topics), table, step, tuple(reads), batch_size)

    def scan(
        self,
        name: str,
        every: float,
        step: ScanFunction,
        reads: Sequence[TableHandle] = (),
        *,
        on_assigned: bool = False,
    ) -> None:
        """Declare that ``step(views, partition)`` returns, every ``every`` seconds, what each owned partition emits.

        ``reads`` defaults to all tables. With ``on_assigned`` it also runs soon after a partition was assigned. A
        generator is best: what it yields is written in chunks, and other tasks run in between.
        """
        self._refuse_when_running()
        if name in self._scans:
            raise ValueError(f"scan {name} is declared twice")
        self._scans[name] = Scan(name, every, step, tuple(reads), on_assigned)

    def service(self, factory: Callable[[], Any]) -> None:
        """Declare a ``mode.Service``: made and started after the tables have recovered, stopped before the rest.

        If it crashes, the worker does.
        """
        self._refuse_when_running()
        self._factories.append(factory)

    def when_moving(self, call: Callable[[bool], None]) -> None:
        """Declare what is called, in the event loop, with true when partitions begin to move and with false afterwards.

        In between no fold runs.
        """
        self._refuse_when_running()
        self._when_moving.append(call)

    def background(self, background: Background) -> None:
        """Declare what runs beside the engine, and has to be ready before records are consumed."""
        self._refuse_when_running()
        self._background.append(background)

    @property
    def changelogs(self) -> tuple[str, ...]:
        """Return the changelog topics that must exist, compacted, before `run`."""
        return tuple(table.changelog for table in self._tables.values())

    def views(self, partition: int) -> dict[str, View]:
        """Return all tables as of an owned partition, for services. Raise `NotHeld` if it is not owned."""
        return {name: store.view(partition) for name, store in self._stores.items()}

    # ------------------------------------------------------------------------------------ observing, from any thread

    @property
    def status(self) -> Status:
        app = self._app
        moving = app is None or app.moving
        reason = self._fatal.reason or (repr(self._crash) if self._crash is not None else None)
        return Status(
            started=app is not None,
            recovered=not moving,
            moving=moving,
            stopping=self._stopping,
            partitions=self._owned() if app is not None else frozenset(),
            heartbeat_age=time.monotonic() - self._beat,
            lag=self._lag,
            reason=reason,
        )

    @property
    def ready(self) -> bool:
        return self.status.ready

    # ------------------------------------------------------------------------------------------------------- running

    def stop(self) -> None:
        """Request a graceful end; from any thread."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            _soon(loop, stop.set)

    async def run(self, *, signals: bool = True) -> None:
        """Run until a signal or `stop`, finish running batches, and commit. Raise `EngineCrashed` after a crash."""
        self._refuse_when_running()
        loop = self._loop = asyncio.get_running_loop()
        stop = self._stop = asyncio.Event()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
        self._beat = time.monotonic()
        watchdog = Watchdog(self.settings.stuck_after, self.settings.stalled_after)
        ticks = Ticks(lambda: self._watch(watchdog))
        membership = Membership(self.settings.session_timeout, self.settings.rebalance_timeout)
        output = Output(self.settings, membership)
        membership.on_end(lambda: _soon(loop, output.disown))
        app = self._build(output, membership)
        ticks.start()
        tasks = [asyncio.create_task(self._beating()), asyncio.create_task(self._probing(app))]
        tasks.append(asyncio.create_task(self._standbys.run()))
        services: list[Any] = []
        background: list[asyncio.Task[None]] = []
        app.when_recovered = lambda: self._start_scans_and_services(app, services, tasks)
        try:
            await output.start()
            background += [asyncio.create_task(one.run()) for one in self._background]
            await self._until_stopped(app, stop, background)
        except Exception as error:
            self._crash = error
        finally:
            self._stopping = True
            try:
                async with asyncio.timeout(self.settings.stop_timeout):
                    await self._shut_down(app, services, tasks, output)
            except TimeoutError:
                self._fatal(Exit.SLOW_STOP, f"a graceful stop took more than {self.settings.stop_timeout:.0f} s")
            except Exception as error:
                self._crash = self._crash or error
            for one in background:
                one.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            ticks.stop()
            if signals:
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)
        if self._crash is not None:
            raise EngineCrashed(str(self._crash)) from self._crash

    def _build(self, output: Output, membership: Membership) -> App:
        app = self._app = App(self.settings, self._observer, self._fatal, output, membership)
        app.when_moving = tuple(self._when_moving)
        memory = RocksMemory(self.settings) if self.settings.store == "rocksdb" else None
        for name, handle in self._tables.items():
            self._stores[name] = new_store(self.settings, name, memory, self._fatal)
            table = app.row_table(name, self._stores[name])
            if table.changelog_topic_name != handle.changelog:
                raise RuntimeError(f"Faust calls the changelog of {name} {table.changelog_topic_name}")
        changelogs = {name: handle.changelog for name, handle in self._tables.items()}
        self._by_changelog |= {handle.changelog: self._stores[name] for name, handle in self._tables.items()}
        app.when_moving += (lambda moving: self._keep_standbys(app, moving),)
        rebuilds = Rebuilds(self.settings, self._stores, changelogs, output)
        self._context = EngineContext(
            output, self._observer, self._fatal, self._stores, app.stopped, rebuilds, app.waiting
        )
        for fold in self._folds.values():
            if fold.batch_size is not None:
                app.batch_sizes |= dict.fromkeys(fold.topics, fold.batch_size)
            agent = FoldAgent(fold, self._context, self._finish, lambda: bool(app.should_stop))
            app.agent(app.batches(fold.topics), name=fold.name, concurrency=1)(agent.run)
        return app

    def _keep_standbys(self, app: App, moving: bool) -> None:
        if moving:
            self._standbys.pause()
        else:
            self._standbys.follow(app.standbys())

    def _finish(self, tp: Any, last: int) -> None:
        assert self._app is not None
        consumer = self._app.batch_consumer
        if consumer is not None:
            consumer.finish(tp, last)

    async def _until_stopped(self, app: App, stop: asyncio.Event, background: Sequence[asyncio.Future[None]]) -> None:
        starting = asyncio.ensure_future(self._start(app))
        stopping = asyncio.ensure_future(stop.wait())
        crashing = asyncio.ensure_future(app._crashed.wait())
        ends: set[asyncio.Future[Any]] = {stopping, crashing, *background}
        try:
            await asyncio.wait({starting, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not stop.is_set() and starting.exception() is None:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not starting.cancelled():
                self._crash = starting.exception()
            if crashing.done():
                self._crash = app.crash_reason or self._crash
            for one in background:
                if one.done() and not one.cancelled():
                    ended = RuntimeError("what runs beside the engine ended before it was stopped")
                    self._crash = self._crash or one.exception() or ended
        finally:
            for task in (starting, stopping, crashing):
                task.cancel()
            await asyncio.gather(starting, stopping, crashing, return_exceptions=True)

    async def _start(self, app: App) -> None:
        """Join the group once everything is ready that has to be there before."""
        for one in self._background:
            await one.ready()
        await app.start()

    async def _start_scans_and_services(self, app: App, services: list[Any], tasks: list[asyncio.Task[None]]) -> None:
        # What exists by now stays until the end: a collection of it would hold the event loop for 30 ms.
        gc.collect()
        gc.freeze()
        for declared in self._scans.values():
            scan = replace(declared, reads=declared.reads or tuple(self._tables.values()))
            tasks.append(asyncio.create_task(ScanTask(scan, self._context, self._owned, self._moves).run()))
        for factory in self._factories:
            service = factory()
            services.append(service)
            await app.add_runtime_dependency(service)

    async def _shut_down(self, app: App, services: list[Any], tasks: list[asyncio.Task[None]], output: Output) -> None:
        beating, *others = tasks
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._standbys.close()
        for service in reversed(services):
            await service.stop()
        await app.stop()
        for one in self._background:
            await one.stop()
        await output.stop()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)

    def _owned(self) -> frozenset[int]:
        app = self._app
        if app is None:
            return frozenset()
        return frozenset(tp.partition for tp in app.owned())

    def _moves(self) -> int | None:
        app = self._app
        return None if app is None or app.moving or self._stopping else int(app.rebalancing_count)

    # ---------------------------------------------------------------------------------------------------- monitoring

    async def _beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT)

    async def _probing(self, app: App) -> None:
        """Ask for the ends of topics: they give the lag, and the answer proves that the consumer's thread runs."""
        while True:
            await asyncio.sleep(PROBE)
            halted = Counter(app.stopped.values()) + Counter(fold for fold, _ in list(app.waiting))
            self._observer.partitions_stopped(dict.fromkeys(self._folds, 0) | halted)
            owned = app.owned()
            consumer = app.batch_consumer
            if app.moving or not owned or consumer is None:
                self._asked = None
                continue
            self._asked = self._asked or time.monotonic()
            done = {tp: tracker.done for tp, tracker in consumer.trackers.items() if tracker.done is not None}
            try:
                async with asyncio.timeout(self.settings.request_timeout * 2):
                    ends = await consumer.highwaters(*owned)
            except TimeoutError:
                continue  # `_asked` stays: the request has no answer yet
            except Exception as error:
                log.debug("The ends of topics could not be read: %r", error)
            else:
                self._note_lag(app, consumer, ends)
                if not app.moving:
                    self._check_ends(done, ends)
            self._asked = None

    def _check_ends(self, done: Mapping[Any, int], ends: Mapping[Any, int]) -> None:
        """End the worker if a partition is shorter than what was processed of it: the next one reads on at its end."""
        for tp, end in ends.items():
            if done.get(tp, 0) > end:
                self._fatal(Exit.TRUNCATED, f"{tp.topic}-{tp.partition} ends at {end}, but {done[tp]} was processed")

    def _note_lag(self, app: App, consumer: Any, ends: Mapping[Any, int]) -> None:
        app.ends = dict(ends)
        total = 0
        for tp, end in ends.items():
            tracker = consumer.trackers.get(tp)
            done = tracker.done if tracker is not None and tracker.done is not None else consumer._read_offset[tp]
            if done is None and (tracker is None or not tracker.waiting):
                done = consumer._thread.fetch_position(tp)  # never committed: a topic may begin after 0
            lag = max(0, end - (done or 0))
            total += lag
            self._observer.lag_measured(tp.topic, tp.partition, lag)
        self._lag = total

    def _watch(self, watchdog: Watchdog) -> None:
        app = self._app
        if app is None or self._stopping:
            return
        now = time.monotonic()
        try:
            asked = self._asked
            unanswered = now - asked if asked is not None else 0.0
            verdict = watchdog.look(app.vitals(now - self._beat, unanswered), now)
        except RuntimeError:
            return  # a dict changed while this thread read it; the next reading is soon
        if verdict is not None:
            self._fatal(*verdict)

    def _refuse_when_running(self) -> None:
        if self._app is not None:
            raise RuntimeError("the engine is already running")


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(call)


def run_worker(engine: Engine) -> int:
    """Run in the main thread until a signal; return the exit code: 0 after a graceful end, 1 after a crash."""
    for name in _VERBOSE:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
    factory = None
    if engine.settings.uvloop:
        import uvloop  # noqa: PLC0415 -- not available on every platform

        factory = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(engine.run())
    except EngineCrashed as crashed:
        log.critical("Worker crashed: %s", crashed, exc_info=crashed.__cause__)
        return 1
    return 0
