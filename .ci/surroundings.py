# ruff: noqa: INP001 -- a script, not part of a package
"""Check that files around the code match it: settings, compose file, README diagram, version of Kafka."""

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

NOT_DRAWN = {
    "dead-letters",
    "follow_integrations",
    "follow_replays",
    "integrations",
    "integrations.history",
    "integrations.status",
    "manage_integrations",
    "mark_date_changes",
    "plan_replays",
    "reconcile_receivers",
    "replays.states",
    "watch_deliveries",
}
"""Flows and topics that the diagram of the README omits; docs/topology.md has all of them."""

COMPOSE = {
    "COMPOSE_PROFILES": "demo",
    "RENTSTREAM_JWT_SECRET": "rentstream-demo-jwt-secret-of-the-stand-ins",
    "RENTSTREAM_CONSOLE_PASSWORD": "rentstream-demo",
    "RENTSTREAM_ENCRYPTION_KEYS": "demo:cmVudHN0cmVhbS1kZW1vLWVuY3J5cHRpb24ta2V5LTE=",
}
"""Settings of deploy/demo.env that `rentstream up --demo` does not need: its processes share a data folder."""


def classes() -> list[type[Settings]]:
    """Import all settings modules and return their settings classes."""
    for path in [*ROOT.glob("connectors/**/settings.py"), *ROOT.glob("streams/*settings.py")]:
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted(_below(Settings), key=lambda one: one.__name__)


def _below(one: type[Settings]) -> Iterator[type[Settings]]:
    for other in one.__subclasses__():
        yield other
        yield from _below(other)


def names() -> set[str]:
    """Return the names of all settings that the code reads."""
    return {
        str(field.validation_alias)
        for settings in classes()
        for field in settings.model_fields.values()
        if field.validation_alias
    }


def _env(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=(.*)$", text, re.MULTILINE))


def diagram(readme: str) -> Iterator[str]:
    """Yield the differences between the diagram of the README and the topology."""
    arrows = {(flow.name, topic.name) for flow in FLOWS for topic in flow.writes}
    arrows |= {(topic.name, flow.name) for flow in FLOWS for topic in flow.reads}
    known = {name for arrow in arrows for name in arrow}
    drawn = readme.partition("```mermaid")[2].partition("```")[0]
    named = dict(re.findall(r"([a-z_]+)\(\[([^\]]+)\]\)", drawn))
    for line in re.sub(r"\(\[[^\]]+\]\)|\[[^\]]+\]", "", drawn).splitlines():
        nodes = [named.get(node, node) for node in re.split(r" -- \w+ --> | --> ", line.strip())]
        for arrow in itertools.pairwise(nodes):
            if known.issuperset(arrow) and arrow not in arrows:
                yield f"README.md draws {arrow[0]} --> {arrow[1]}, which streams/topology.py does not have"
    yield from (
        f"README.md does not draw {topic}" for topic in sorted(known - set(re.findall(r"[\w.-]+", drawn)) - NOT_DRAWN)
    )


def differences() -> Iterator[str]:
    """Yield one line per difference between the files and the code."""
    known = names()
    example = _env((ROOT / ".env.example").read_text(encoding="utf-8"))
    yield from (f".env.example lacks {name}" for name in sorted(known - example.keys()))
    yield from (f".env.example contains {name}, which nothing reads" for name in sorted(example.keys() - known))
    for settings in classes():
        values = {
            field.validation_alias: example.get(str(field.validation_alias)) for field in settings.model_fields.values()
        }
        required = {"RENTSYNC_URL": "https://receiver.example.com/", "RENTSYNC_API_KEY": "key"}
        try:
            documented = settings.read({str(name): value for name, value in values.items() if value} | required)
        except SettingsError as error:
            yield from (f".env.example: {line}" for line in error.lines)
        else:
            if documented != settings.read(required):
                yield f".env.example differs from the defaults of {settings.__name__}"
    yield from diagram((ROOT / "README.md").read_text(encoding="utf-8"))
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    demo = _env((ROOT / "deploy" / "demo.env").read_text(encoding="utf-8"))
    configured = set(re.findall(r"\b((?:BUILDIUM|RENTSYNC|RENTSTREAM|KAFKA|DATABASE)_[A-Z_]+):", compose))
    broker = set(re.findall(r"^      (KAFKA_[A-Z_]+):", compose.partition("\n  postgres:")[0], re.MULTILINE))
    yield from (f"docker-compose.yml lacks {name}" for name in sorted(known - configured))
    yield from (
        f"docker-compose.yml contains {name}, which nothing reads"
        for name in sorted(configured - known - (broker - {"KAFKA_BOOTSTRAP_SERVERS"}))
    )
    if demo != demo_env("http://stand-ins:4010", "http://stand-ins:4020") | COMPOSE:
        yield "deploy/demo.env differs from the settings of `rentstream up --demo` (demo_env in streams/local/demo.py)"
    if f"image: apache/kafka:{KAFKA_VERSION}\n" not in compose:
        yield f"docker-compose.yml must use Kafka {KAFKA_VERSION}, the version of the embedded Kafka"


if __name__ == "__main__":
    lines = list(differences())
    if lines:
        sys.exit("\n".join(lines))
