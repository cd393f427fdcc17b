"""Where commands are entered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from streams.cli import cli


@dataclass
class Terminal:
    """Where commands are entered, and all that was printed."""

    folder: Path
    env: dict[str, str]
    outputs: list[str] = field(default_factory=list)
    exit_code: int = 0

    def run(self, *words: str, typed: Sequence[str] = ()) -> str:
        """Run ``rentstream …`` with lines on standard input; return what it printed."""
        runner = CliRunner(env={**self.env, "RENTSTREAM_DATA": str(self.folder / "data")})
        with runner.isolated_filesystem(self.folder):  # a .env file of the folder of the tests is not ours
            result: Result = runner.invoke(
                cli, words, input="".join(f"{one}\n" for one in typed), catch_exceptions=False
            )
        self.outputs += [result.output, result.stderr]
        self.exit_code = result.exit_code
        return result.output

    def integrations(self, *words: str, typed: Sequence[str] = (), expect: int = 0) -> str:
        output = self.run("integrations", *words, typed=typed)
        assert self.exit_code == expect, output
        return output

    def data(self, *words: str) -> Any:
        return json.loads(self.integrations(*words, "--json"))
