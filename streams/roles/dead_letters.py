"""``rentstream dead-letters``: what was given up, from the query view, and the bytes of one record, from its topic."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from connectors.clock import SystemClock
from connectors.ports import Clock
from schemas import topics
from schemas.codec import DecodeError, UnknownWriter, decode
from schemas.retry import is_history
from streams.backends.ports import Backend, BackendError, Partition
from streams.core.flows import Record
from streams.roles.integrations import kafka_backend
from streams.roles.manage import READ_WITHIN, ManageFailed
from streams.roles.view import opened
from streams.runners.global_ import within
from streams.runners.reading import ends_of, fetched
from streams.settings import KafkaSettings, RentStreamSettings
from streams.view.database import ViewUnavailable
from streams.view.queries import Item, LetterFilter

PAGE: Final = 500
"""Letters of one query."""

SHOWN: Final = 5
"""Letters of a group that are shown as text, the newest first."""


def find(settings: RentStreamSettings, org: str, wanted: LetterFilter, limit: int) -> tuple[list[Item], list[Item]]:
    """Return the newest dead letters of an org, and their groups. Raise `ManageFailed` and `SettingsError`."""
    with opened(settings) as queries:
        try:
            letters: list[Item] = []
            cursor = None
            while len(letters) < limit:
                page = queries.dead_letters(org, wanted, min(PAGE, limit - len(letters)), cursor)
                letters += page.items
                cursor = page.next_cursor
                if cursor is None:
                    break
            return letters, queries.dead_letter_groups(org, wanted, limit).items
        except ViewUnavailable as error:
            raise ManageFailed(f"{error}: check DATABASE_URL, or that the web role has run, which fills it") from None


def content(settings: RentStreamSettings, kafka: KafkaSettings, place: tuple[int, int]) -> Record:
    """Return a dead letter as it is on its topic. Raise `ManageFailed`."""
    clock = SystemClock()

    async def read() -> Record | None:
        backend = kafka_backend(settings, kafka, "letters")
        partition = Partition(topics.DEAD_LETTERS.name, place[0])
        return await within(clock, _record(backend, clock, partition, place[1]), READ_WITHIN)

    try:
        found = asyncio.run(read())
    except (TimeoutError, BackendError) as error:
        reason = str(error) or f"not read within {READ_WITHIN:g} s"
        raise ManageFailed(f"the topic cannot be read ({reason}): check KAFKA_BOOTSTRAP_SERVERS") from None
    if found is None:
        raise ManageFailed(f"there is no dead letter {place[0]}-{place[1]}: they are kept for 30 days")
    return found


async def _record(backend: Backend, clock: Clock, partition: Partition, offset: int) -> Record | None:
    """Return the record at an offset; null if there is none. Raise `BackendError`."""
    ends = await ends_of(backend, clock, [partition.topic])
    if offset >= ends.get(partition, 0):
        return None
    reader = backend.reader([partition.topic], {**ends, partition: offset})
    await reader.start()
    try:
        while reader.positions.get(partition, 0) <= offset:
            for record in (await fetched(reader, clock)).get(partition, ()):
                return record if record.offset == offset else None
        return None
    finally:
        await reader.stop()


# ------------------------------------------------------------------------------------------------------------- output


def as_json(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return letters or groups for programs; they have the form of the API."""
    return [{name: _plain(value) for name, value in item.items()} for item in items]


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def content_as_json(record: Record) -> dict[str, Any]:
    """Return the bytes of a letter for programs and people: decoded as far as they can be."""
    found: dict[str, Any] = {
        "key": (record.key or b"").decode("utf-8", "backslashreplace"),
        "headers": {
            name: value.decode("utf-8", "backslashreplace") for name, value in record.headers if not is_history(name)
        },
    }
    try:
        value = decode(record.value)
    except (DecodeError, UnknownWriter) as error:
        return {**found, "unreadable": str(error), "bytes": (record.value or b"").hex()}
    return {**found, "record": type(value).__name__, "content": msgspec.json.decode(msgspec.json.encode(value))}


def lines(letters: Sequence[Item], groups: Sequence[Item], *, everything: bool) -> list[str]:
    """Return letters for people: by cause, each with its newest letters."""
    if not groups:
        return ["nothing was given up" if everything else "nothing that was given up is open (--all shows the rest)"]
    by_cause: dict[str, list[Item]] = {}
    for letter in letters:
        by_cause.setdefault(letter["fingerprint"], []).append(letter)
    return [line for group in groups for line in _group(group, by_cause.get(group["fingerprint"], []))]


def _group(group: Item, letters: Sequence[Item]) -> Iterator[str]:
    number = group["letters"]
    closed = f", {number - group['open']} closed" if number != group["open"] else ""
    yield (
        f"{group['fingerprint']}  {number} x {group['flow'] or '?'}: {group['reason'] or '?'}{closed}, "
        f"last {group['last']:%Y-%m-%d %H:%M:%S}Z"
    )
    yield f"  {group['message'] or 'no words'}"
    for letter in letters[:SHOWN]:
        where = letter["receiver"] or letter["connection"] or ""
        at, entity = f"{letter['time']:%Y-%m-%d %H:%M:%S}Z", letter["entity"] or "-"
        yield f"    {letter['id']:12} {at}  {letter['state']:6}  {entity}  {where}".rstrip()
    if number > SHOWN:
        command = f"rentstream dead-letters list --fingerprint {group['fingerprint']} --json"
        yield f"    … and {number - SHOWN} more: {command}"


def letter_lines(letter: Item, body: Mapping[str, Any]) -> list[str]:
    """Return one letter for people."""
    text = msgspec.json.format(msgspec.json.encode(body.get("content", body)), indent=2).decode()
    facts = [f"{name:14} {_plain(value)}" for name, value in letter.items() if value is not None]
    return [*facts, "", f"{body.get('record', 'record')}:", text]
