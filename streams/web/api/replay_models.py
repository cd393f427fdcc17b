"""The bodies of requests and answers about replays; the OpenAPI document is generated from these classes."""

from datetime import datetime
from typing import Annotated, Any

from msgspec.structs import asdict
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field

from schemas import topics
from schemas.replay import ReplayPlan
from streams.core.dead_letters import place_of
from streams.core.replays import FASTEST, RATE, ReplayState
from streams.replays.book import Replay as KnownReplay
from streams.replays.planner import ReplayRequest
from streams.view.queries import LetterFilter
from streams.web.api.models import ApiModel, RequestModel
from streams.web.api.moments import moment


def _place(text: str) -> str:
    place_of(text)
    return text


Moment = Annotated[AwareDatetime, BeforeValidator(moment)]


class ReplayInput(RequestModel):
    """Which records to replay; without any member all open dead letters of the org."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"reason": "rejected", "integration": "rentsync"},
                {"topic": topics.WEBHOOKS.name, "since": "2026-03-01T12:00:00Z"},
            ]
        }
    )

    topic: str = Field(
        default=topics.DEAD_LETTERS.name,
        max_length=200,
        description=f"The topic that the records are on. Of another one than `{topics.DEAD_LETTERS.name}`, `since` or "
        "`id` is needed.",
    )
    id: Annotated[str, AfterValidator(_place)] | None = Field(
        default=None, pattern=r"^\d{1,5}-\d{1,18}$", examples=["3-1042"], description="One record: PARTITION-OFFSET."
    )
    since: Moment | None = None
    until: Moment | None = None
    origin: str | None = Field(default=None, max_length=200, description="The topic that dead letters were on.")
    reason: str | None = Field(default=None, max_length=100, examples=["rejected"])
    fingerprint: str | None = Field(default=None, pattern="^[0-9a-f]{1,64}$")
    entity: str | None = Field(default=None, max_length=200, examples=["property:1001"])
    integration: str | None = Field(default=None, max_length=64, description="The connection or the receiver.")
    rate: int = Field(default=RATE, ge=1, le=FASTEST, description="Records a second at most.")

    def request(self, org: str) -> ReplayRequest:
        """Return what is asked for; without a filter only what is open."""
        named = {name: getattr(self, name) for name in ("origin", "reason", "fingerprint", "entity", "integration")}
        place = None if self.id is None else place_of(self.id)
        filtered = any(value is not None for value in (place, self.since, self.until, *named.values()))
        wanted = LetterFilter(open=None if filtered else True, place=place, since=self.since, until=self.until, **named)
        return ReplayRequest(org, wanted, self.topic, self.rate)


class ReplayKey(ApiModel):
    """An entity that records of a plan are about."""

    entity: str | None
    integration: str | None
    records: int


class Difference(ApiModel):
    """A field of a unit that a receiver will learn."""

    receiver: str
    connection: str
    property_id: int
    unit_id: int
    field: str = Field(
        description="As in the rent roll; `unit` if the receiver does not know the unit, `other` for what is not shown "
        "there.",
        examples=["rent"],
    )
    known: str | None = Field(description="What the receiver acknowledged last.")
    now: str | None


class Planned(ApiModel):
    """What the plan has; the other members add up to `matched`."""

    matched: int
    replayed: int
    superseded: int = Field(description="Made up for since, or by a later record of the plan.")
    exhausted: int = Field(description="Replayed three times before; name one by its id to replay it once more.")
    unsuitable: int = Field(description="Nothing would process them again, or a schedule makes them again by itself.")


class ReplayReport(ApiModel):
    """What has become of the records to be replayed; all members but the last add up to `planned.replayed`."""

    replayed: int
    gone: int = Field(description="The topic has them no more.")
    unreadable: int = Field(description="This release cannot read them either.")
    refused: int = Field(description="They are of another org, or nothing would process them again.")
    left: int = Field(description="Still to be replayed, or left out by the end of the replay.")
    given_up_again: int | None = Field(
        description="How many of the replayed ones are dead letters again; null if the query view cannot be read."
    )


class Replay(ApiModel):
    """A replay: its plan, its state and its report."""

    id: str = Field(examples=["20261127T140000Z-5f0c21ab"])
    org: str
    state: ReplayState
    topic: str
    filters: dict[str, str]
    rate: int
    seconds: float = Field(description="How long the rest takes at this rate.")
    planned: Planned
    keys: tuple[ReplayKey, ...] = Field(description="The entities with the most records, at most 100.")
    key_count: int = Field(description="How many entities there are.")
    compared: int = Field(description="Deliveries that were compared with what their receivers acknowledged.")
    differences: tuple[Difference, ...] = Field(description="What these will learn, as of the plan; at most 200.")
    report: ReplayReport
    planned_at: datetime
    planned_by: str
    ordered_at: datetime | None
    ordered_by: str | None
    ended_at: datetime | None

    @classmethod
    def of(cls, known: KnownReplay, given_up_again: int | None) -> "Replay":
        """Return a replay in the form of the API."""
        plan, order, progress = known.plan, known.order, known.progress
        left = plan.replayed - known.position
        counts: dict[str, Any] = {
            name: getattr(progress, name, 0) for name in ("replayed", "gone", "unreadable", "refused")
        }
        return cls(
            id=plan.id,
            org=plan.org,
            state=known.state,
            topic=plan.source,
            filters={one.name: one.value for one in plan.filters},
            rate=plan.rate,
            seconds=round(left / plan.rate, 1),
            planned=_planned(plan),
            keys=tuple(
                ReplayKey(entity=one.entity, integration=one.integration, records=one.records) for one in plan.keys
            ),
            key_count=plan.key_count,
            compared=plan.compared,
            differences=tuple(Difference.model_validate(asdict(one)) for one in plan.differences),
            report=ReplayReport(**counts, left=left, given_up_again=given_up_again),
            planned_at=plan.at,
            planned_by=plan.by,
            ordered_at=order.at if order else None,
            ordered_by=order.by if order else None,
            ended_at=progress.ended_at if progress else None,
        )


def _planned(plan: ReplayPlan) -> Planned:
    return Planned(
        matched=plan.matched,
        replayed=plan.replayed,
        superseded=plan.superseded,
        exhausted=plan.exhausted,
        unsuitable=plan.unsuitable,
    )


class ReplayList(ApiModel):
    """The replays of an org, the newest first."""

    items: tuple[Replay, ...]
