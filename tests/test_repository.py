"""Rules for the repository as a whole: imports, docstrings, mirrored tests, no local paths."""

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("schemas", "connectors", "streams")
EXCLUDED = {".git", ".venv", ".rentstream", "__pycache__", "dist", "build", ".env"}

FORBIDDEN = ("/" + "work" + "/",)
"""Paths of the place where this was built."""

LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "streams/local/kafka.lock")

FRAMEWORKS = {"aiokafka", "faust", "mode", "rocksdict"}
MAY_IMPORT_FRAMEWORKS = (
    "streams/engine/",
    "streams/backends/",
    "streams/runners/service.py",
    "streams/observability/lag.py",
    "streams/local/embedded_kafka.py",
    "streams/local/progress.py",
)
"""Modules that may import Faust or aiokafka."""


def files() -> Iterator[Path]:
    """Yield every file of the repository except those that tools generate."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if name not in EXCLUDED and not name.endswith(("_cache", ".egg-info", ".hypothesis"))
        ]
        yield from (Path(folder, name) for name in names if name not in EXCLUDED)


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield path and syntax tree of every module."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Return the top-level packages that a module imports, also inside of functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_no_file_contains_a_local_path() -> None:
    checked = 0
    for path in files():
        content = path.read_bytes()
        checked += 1
        for text in FORBIDDEN:
            assert text.encode() not in content, f"{path.relative_to(ROOT)} contains {text}"
    assert checked > 100


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_a_host(name: str) -> None:
    """Where packages come from is a matter of the machine's own settings; the hashes are the lock's."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) > 10
    assert "://" not in text


@pytest.mark.parametrize("folder", PACKAGES)
def test_every_module_has_a_docstring_that_starts_with_a_sentence(folder: str) -> None:
    for path, tree in modules(folder):
        docstring = ast.get_docstring(tree)
        assert docstring, f"{path} has no docstring"
        first = docstring.splitlines()[0]
        assert first.rstrip().endswith((".", ":", "?")), f"{path}: {first}"


def test_only_listed_modules_import_faust_or_aiokafka() -> None:
    """The engine, the backends, and the few other modules that talk to a broker."""
    for path, tree in modules(*PACKAGES):
        if not path.startswith(MAY_IMPORT_FRAMEWORKS):
            assert not imported(tree) & FRAMEWORKS, path


def test_only_the_engine_imports_faust() -> None:
    for path, tree in modules(*PACKAGES):
        if not path.startswith(("streams/engine/", "streams/runners/service.py")):
            assert not imported(tree) & {"faust", "mode", "rocksdict"}, path


def test_schemas_import_msgspec_and_fastavro_only() -> None:
    for path, tree in modules("schemas"):
        outside = imported(tree) - {"schemas", "msgspec", "fastavro"}
        assert outside <= {"collections", "dataclasses", "datetime", "decimal", "enum", "functools", "importlib", "io",
                           "json", "pathlib", "sys", "types", "typing"}, path  # fmt: skip


def test_the_core_is_pure() -> None:
    """No I/O, no waiting, no clock and no randomness: they are passed in."""
    for path, tree in modules("streams/core"):
        assert not imported(tree) & {"asyncio", "time", "random", "os", "socket", "httpx", "threading"}, path
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)], path
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not attributes & {"utcnow", "today", "uuid4", "uuid1"}, path
        clocks = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr == "now"
            and isinstance(node.value, ast.Name)
            and node.value.id == "datetime"
        ]
        assert not clocks, path


def test_every_module_of_the_core_has_its_tests() -> None:
    """In the mirrored place, under its name; `flows` holds types only."""
    core, tests = ROOT / "streams" / "core", ROOT / "tests" / "streams" / "core"
    for path in core.rglob("*.py"):
        if path.stem not in ("__init__", "flows"):
            mirrored = (tests / path.relative_to(core)).with_name(f"test_{path.name}")
            assert mirrored.is_file(), f"{path.relative_to(ROOT)} has no {mirrored.relative_to(ROOT)}"


def test_the_tests_of_a_package_stand_where_the_package_does() -> None:
    """``tests/streams/core/test_offer.py`` is about ``streams/core/offer.py``."""
    for folder in ("schemas", "streams/core"):
        tests = ROOT / "tests" / folder
        for path in tests.rglob("test_*.py"):
            module = (ROOT / folder / path.relative_to(tests)).with_name(path.name.removeprefix("test_"))
            assert module.is_file(), path


def test_waiting_with_a_limit_cannot_lose_a_cancellation() -> None:
    """``asyncio.wait_for`` of Python 3.11 swallows one that comes as the result does; ``asyncio.timeout`` does not."""
    found = [
        f"{path}:{node.lineno}"
        for path, tree in modules("connectors", "streams")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "asyncio.wait_for"
    ]
    assert found == []
