"""All replays in the memory of a process, kept up to date by records."""

import logging
from dataclasses import dataclass
from datetime import datetime

from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.replay import ReplayOrder, ReplayPlan, ReplayProgress
from streams.core.replays import ReplayState, state_of

log = logging.getLogger("streams.replays")

TOPICS = (topics.REPLAY_STATES.name,)
"""The topics that the book is made from."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay."""

    plan: ReplayPlan
    order: ReplayOrder | None = None
    """The last one; null before the approval."""
    progress: ReplayProgress | None = None

    @property
    def state(self) -> ReplayState:
        return state_of(self.order, self.progress)

    @property
    def position(self) -> int:
        """Return how many records are done with."""
        return 0 if self.progress is None else self.progress.position

    @property
    def changed_at(self) -> datetime:
        """Return when a record about it was written last."""
        return max(one.at for one in (self.plan, self.order, self.progress) if one is not None)


class ReplayBook:
    """A `streams.runners.global_.Memory` of replays. Compaction may put a plan behind what is about it."""

    def __init__(self) -> None:
        self.caught_up = False
        self._plans: dict[str, dict[str, ReplayPlan]] = {}
        self._orders: dict[tuple[str, str], ReplayOrder] = {}
        self._progress: dict[tuple[str, str], ReplayProgress] = {}

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Apply one record; null deletes. One that cannot be decoded is skipped."""
        try:
            record = None if value is None else decode(value)
        except (DecodeError, UnknownWriter) as error:
            log.warning("A record of %s is skipped: %s", topic, error)
            return
        match record:
            case ReplayPlan():
                self._plans.setdefault(record.org, {})[record.id] = record
            case ReplayOrder():
                self._orders[record.org, record.id] = record
            case ReplayProgress():
                self._progress[record.org, record.id] = record
            case None:
                self._forget(key)

    def _forget(self, key: bytes | None) -> None:
        org, replay, kind = (*(key or b"").decode(errors="replace").split("/"), "", "", "")[:3]
        match kind:
            case "plan":
                self._plans.get(org, {}).pop(replay, None)
            case "order":
                self._orders.pop((org, replay), None)
            case "progress":
                self._progress.pop((org, replay), None)

    # -------------------------------------------------------------------------------------------------------- reading

    def get(self, org: str, replay: str) -> Replay | None:
        """Return a replay; null if there is none."""
        plan = self._plans.get(org, {}).get(replay)
        return None if plan is None else self._whole(plan)

    def of(self, org: str) -> list[Replay]:
        """Return the replays of an org, the newest plan first."""
        plans = self._plans.get(org, {}).values()
        return [self._whole(one) for one in sorted(plans, key=lambda one: (one.at, one.id), reverse=True)]

    def running(self, org: str) -> list[Replay]:
        """Return the replays of an org that are running."""
        plans = self._plans.get(org)
        return [] if plans is None else [one for one in self.of(org) if one.state is ReplayState.RUNNING]

    def orgs(self) -> tuple[str, ...]:
        """Return the orgs that have plans."""
        return tuple(self._plans)

    def _whole(self, plan: ReplayPlan) -> Replay:
        key = (plan.org, plan.id)
        return Replay(plan, self._orders.get(key), self._progress.get(key))
