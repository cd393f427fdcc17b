# ruff: noqa: INP001 -- a script, not part of a package
"""Makes the lock files of pyproject.toml; ``--check`` says, without a network, whether they are still its own.

Each lock names the exact versions and hashes for every Python and system that the project supports, and no host: pip
takes them from wherever it is set up to look.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LOCKS = {
    "requirements.lock": ("pyproject.toml",),
    "requirements-build.lock": ("--group", "build", "--constraints", "requirements.lock"),
    "requirements-dev.lock": (
        *("pyproject.toml", "--group", "dev", "--group", "build"),
        *("--constraints", "requirements.lock", "--constraints", "requirements-build.lock"),
    ),
}
"""What each is made from; the later ones agree with the first."""


def head(name: str) -> str:
    """Give the first lines of a lock: where it comes from, and a digest of all that it follows from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    told = [
        project["project"]["requires-python"],
        project["project"]["dependencies"],
        project["dependency-groups"],
        project["build-system"]["requires"],
        LOCKS[name],
    ]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return f"# Made by `make lock` from pyproject.toml ({digest}).\n"


def stale() -> list[str]:
    """Name the locks that do not follow from today's pyproject.toml, or that name a host."""
    found = []
    for name in LOCKS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not text.startswith(head(name)) or "://" in text:
            found.append(name)
    return found


def make(options: list[str]) -> None:
    """Resolve every lock; versions stay as they are as long as they can, unless ``--upgrade`` is given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = project["project"]["requires-python"].removeprefix(">=")
    for name, sources in LOCKS.items():
        subprocess.run(  # noqa: S603 -- our own arguments
            [
                *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
                *("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--python-version", oldest),
                *(*sources, "--output-file", name, *options),
            ],
            cwd=ROOT,
            check=True,
        )
        text = (ROOT / name).read_text(encoding="utf-8")
        (ROOT / name).write_text(head(name) + text.removeprefix(head(name)), encoding="utf-8")


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        wrong = stale()
        if wrong:
            sys.exit(f"{', '.join(wrong)}: not made from this pyproject.toml; run `make lock`")
    else:
        make(sys.argv[1:])
