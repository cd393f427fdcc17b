"""Replays: which records are to be processed again, who ordered that, and how far it is.

A plan is written once. Orders are written by people and progress by the worker, under keys of their own, so that
neither overwrites the other. What state a replay is in follows from the three (`streams.replays.book`).
"""

from collections.abc import Mapping
from enum import StrEnum

from schemas.base import Instant, Model


class ReplayPart(Model, frozen=True, kw_only=True):
    """Records of one partition of the source."""

    partition: int
    offsets: tuple[int, ...]
    """In rising order, which is the order of the replay."""


class PlannedKey(Model, frozen=True, kw_only=True):
    """An entity that records of a plan are about."""

    entity: str | None = None
    """As in a dead letter; null: several, or none."""
    integration: str | None = None
    """The receiver, else the connection."""
    records: int


class PlannedDifference(Model, frozen=True, kw_only=True):
    """A field of a unit that a receiver will learn by the replay of a delivery."""

    receiver: str
    connection: str
    property_id: int
    unit_id: int
    field: str
    """As in the rent roll (``rent``); ``unit`` if the receiver does not know the unit, ``other`` if nothing that is
    compared has changed."""
    known: str | None = None
    """What the receiver acknowledged last; null if nothing, or nothing that is still on the topic."""
    now: str | None = None


class PlannedFilter(Model, frozen=True, kw_only=True):
    """Which records were asked for, as text; null: any."""

    name: str
    value: str


class ReplayPlan(Model, frozen=True, kw_only=True):
    """What a replay will do. Written to ``replays.states``, key ``org/id/plan``.

    ``replayed``, ``superseded``, ``exhausted`` and ``unsuitable`` add up to ``matched``.
    """

    org: str
    id: str
    at: Instant
    by: str
    """Subject of the token, or the user of the command line."""
    source: str
    """The topic that the records are on, without the prefix."""
    filters: tuple[PlannedFilter, ...] = ()
    rate: int
    """Records a second at most."""
    matched: int
    replayed: int
    superseded: int
    """Those that have been made up for since, or that a later record of the plan makes up for."""
    exhausted: int
    """Those that were replayed too often before."""
    unsuitable: int
    """Those that nothing would process again, or that a schedule makes again by itself."""
    keys: tuple[PlannedKey, ...] = ()
    """The entities with the most records, first."""
    key_count: int = 0
    compared: int = 0
    """Deliveries whose content was compared with what their receiver acknowledged: the first ones."""
    differences: tuple[PlannedDifference, ...] = ()
    """Of these, at most some hundred."""
    parts: tuple[ReplayPart, ...] = ()
    """The records; emptied when the replay has ended."""


class ReplayWish(StrEnum):
    """What a person wants of a replay."""

    UNKNOWN = "unknown"
    RUN = "run"
    """Begin, or go on."""
    PAUSE = "pause"
    CANCEL = "cancel"


class ReplayOrder(Model, frozen=True, kw_only=True):
    """The last order about a replay. Written to ``replays.states``, key ``org/id/order``."""

    org: str
    id: str
    wish: ReplayWish
    at: Instant
    by: str


class ReplayProgress(Model, frozen=True, kw_only=True):
    """How far a replay is. Written to ``replays.states``, key ``org/id/progress``.

    ``replayed``, ``gone``, ``unreadable`` and ``refused`` add up to ``position``.
    """

    org: str
    id: str
    at: Instant
    began_at: Instant
    position: int
    """How many records of the plan are done with."""
    replayed: int = 0
    gone: int = 0
    """Those that the source has no more."""
    unreadable: int = 0
    """Those that this release cannot read either."""
    refused: int = 0
    """Those that turned out to be of another org, or of a kind that nothing would process again."""
    ended_at: Instant | None = None


class ReplayStep(Model, frozen=True, kw_only=True):
    """A request to replay the next records of a plan. Written to ``replays.steps``.

    It carries its state from record to record. If one is lost, a scan asks again.
    """

    org: str
    id: str
    progress: ReplayProgress
    """That before the step."""


REPLAY_KINDS: Mapping[type[Model], str] = {
    ReplayPlan: "plan",
    ReplayOrder: "order",
    ReplayProgress: "progress",
}
"""The records of ``replays.states``, and how their keys end."""
