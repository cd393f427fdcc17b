# ruff: noqa: INP001 -- a script, not part of a package
"""Generate the lock files from pyproject.toml; ``--check`` verifies offline that they are current.

Each lock lists exact versions and hashes for every supported Python and operating system, and no host: pip downloads
from its configured index.
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
"""Arguments of uv for each lock; the later ones are constrained by the earlier ones."""


def header(name: str) -> str:
    """Return the header of a lock, with a digest of everything that determines its content."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    inputs = [
        project["project"]["requires-python"],
        project["project"]["dependencies"],
        project["dependency-groups"],
        project["build-system"]["requires"],
        LOCKS[name],
    ]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return f"# Made by `make lock` from pyproject.toml ({digest}).\n"


def stale() -> list[str]:
    """Return the names of the locks that are outdated or contain a URL."""
    outdated = []
    for name in LOCKS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not text.startswith(header(name)) or "://" in text:
            outdated.append(name)
    return outdated


def make(options: list[str]) -> None:
    """Resolve every lock; existing versions are kept where possible, unless ``options`` contain ``--upgrade``."""
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
        (ROOT / name).write_text(header(name) + text.removeprefix(header(name)), encoding="utf-8")


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        outdated = stale()
        if outdated:
            sys.exit(f"{', '.join(outdated)}: not generated from this pyproject.toml; run `make lock`")
    else:
        make(sys.argv[1:])
