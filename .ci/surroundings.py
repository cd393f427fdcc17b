# ruff: noqa: INP001 -- a script, not part of a package
"""Holds the files around the code to the code: every setting has its line, and there is one version of Kafka."""

import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from connectors.settings import Settings, SettingsError
from streams.local.demo import demo_env
from streams.local.kafka_jars import KAFKA_VERSION
from streams.topology import FLOWS

ROOT = Path(__file__).resolve().parent.parent

READ_LATER = {"DATABASE_URL"}
"""What a file may already set and no code reads yet."""

NOT_DRAWN = {"mark_date_changes", "watch_deliveries", "dead-letters"}
"""What the README's picture leaves to docs/topology.md."""

COMPOSE = {"COMPOSE_PROFILES": "demo"}
"""Compose's own names in deploy/demo.env."""


def classes() -> list[type[Settings]]:
    """Find every class of settings, wherever a package keeps its own."""
    for path in [*ROOT.glob("connectors/**/settings.py"), *ROOT.glob("streams/*settings.py")]:
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(_below(Settings), key=lambda one: one.__name__)


def _below(one: type[Settings]) -> Iterator[type[Settings]]:
    for other in one.__subclasses__():
        yield other
        yield from _below(other)


def names() -> set[str]:
    """Name every setting that this release reads."""
    return {
        str(field.validation_alias)
        for one in classes()
        for field in one.model_fields.values()
        if field.validation_alias
    }


def _env(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))


def picture(readme: str) -> Iterator[str]:
    """Say which arrows of the README's picture are not in the topology."""
    true = {(one.name, topic.name) for one in FLOWS for topic in one.writes}
    true |= {(topic.name, one.name) for one in FLOWS for topic in one.reads}
    known = {name for arrow in true for name in arrow}
    drawn = readme.partition("```mermaid")[2].partition("```")[0]
    named = dict(re.findall(r"([a-z_]+)\(\[([^\]]+)\]\)", drawn))
    for line in re.sub(r"\(\[[^\]]+\]\)|\[[^\]]+\]", "", drawn).splitlines():
        nodes = [named.get(node, node) for node in re.split(r" -- \w+ --> | --> ", line.strip())]
        for arrow in itertools.pairwise(nodes):
            if known.issuperset(arrow) and arrow not in true:
                yield f"README.md draws {arrow[0]} --> {arrow[1]}, which streams/topology.py does not have"
    yield from (
        f"README.md does not draw {topic}" for topic in sorted(known - set(re.findall(r"[\w.-]+", drawn)) - NOT_DRAWN)
    )


def wrong() -> Iterator[str]:
    """Say what does not agree, a line each."""
    known = names()
    example = _env((ROOT / ".env.example").read_text(encoding="utf-8"))
    yield from (f".env.example lacks {name}" for name in sorted(known - example.keys()))
    yield from (f".env.example names {name}, which nothing reads" for name in sorted(example.keys() - known))
    for one in classes():
        given = {
            field.validation_alias: example.get(str(field.validation_alias)) for field in one.model_fields.values()
        }
        needs = {"RENTSYNC_URL": "https://receiver.example.com/", "RENTSYNC_API_KEY": "key"}
        try:
            shown = one.read({str(name): value for name, value in given.items() if value} | needs)
        except SettingsError as error:
            yield from (f".env.example: {line}" for line in error.lines)
        else:
            if shown != one.read(needs):
                yield f".env.example shows other values than the defaults of {one.__name__}"
    yield from picture((ROOT / "README.md").read_text(encoding="utf-8"))
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    demo = _env((ROOT / "deploy" / "demo.env").read_text(encoding="utf-8"))
    ours = set(re.findall(r"\b((?:BUILDIUM|RENTSYNC|RENTSTREAM|KAFKA|DATABASE)_[A-Z_]+):", compose))
    broker = set(re.findall(r"^      (KAFKA_[A-Z_]+):", compose.partition("\n  postgres:")[0], re.MULTILINE))
    yield from (f"docker-compose.yml lacks {name}" for name in sorted(known - ours))
    yield from (
        f"docker-compose.yml names {name}, which nothing reads"
        for name in sorted(ours - known - READ_LATER - (broker - {"KAFKA_BOOTSTRAP_SERVERS"}))
    )
    if demo != demo_env("http://stand-ins:4010", "http://stand-ins:4020") | COMPOSE:
        yield "deploy/demo.env does not point at the stand-ins as `rentstream up --demo` does (streams/local/demo.py)"
    if f"image: apache/kafka:{KAFKA_VERSION}\n" not in compose:
        yield f"docker-compose.yml runs another Kafka than the embedded one, which is {KAFKA_VERSION}"


if __name__ == "__main__":
    lines = list(wrong())
    if lines:
        sys.exit("\n".join(lines))
