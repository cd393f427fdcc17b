"""``python -m benchmarks [--quick]``: every benchmark after the other, each with its reference in the same run."""

import subprocess
import sys

EACH: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("benchmarks.ingress", "the ingress beside a bare ASGI answer", ("--seconds", "2", "--turns", "1")),
    ("benchmarks.latency", "a webhook's way to the receiver", ("--quick",)),
    ("benchmarks.fold", "changes through the rent roll", ("--quick",)),
    ("benchmarks.recovery", "a lost state directory", ("--quick",)),
    ("benchmarks.sweep", "an account of 100,000 units", ("--quick",)),
)
"""Module, what it measures, and the arguments under which it measures less."""


def main() -> int:
    quick = "--quick" in sys.argv[1:]
    failed = 0
    for module, what, less in EACH:
        print(f"\n=== {what} ({module})\n", flush=True)
        failed += subprocess.run([sys.executable, "-m", module, *(less if quick else ())], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
