"""`ocitool` as its users start it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from support import ordinary


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> str:
        """What a `$(…)` around the command gives."""
        return self.out.removesuffix("\n")


class Cli(Protocol):
    """The command line in the test's own process; a command must exit with `code`."""

    def __call__(self, *arguments: str | Path, code: int = 0) -> Done: ...


@dataclass(frozen=True)
class Ocitool:
    """The command line with a home and a store of its own."""

    home: Path
    ordinary: bool = False
    """Whether the process is an ordinary user's."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "OCITOOL_STORE": str(self.home / "store")}

    def __call__(self, *arguments: str | Path, stdin: str = "", code: int | None = 0) -> Done:
        """Run a command; it must exit with `code`, unless that is None, and never show a traceback."""
        program = [sys.executable, "-m", "ocitool", *map(str, arguments)]
        done = subprocess.run(
            ordinary.command(*program) if self.ordinary else program,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",  # a path is printed by its own bytes
            env=self.environment,
            cwd=self.home,
            check=False,
            timeout=120,
        )
        told = (
            f"ocitool {' '.join(map(str, arguments))} exited {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        assert "Traceback" not in done.stderr, told
        assert code is None or done.returncode == code, told
        return Done(done.returncode, done.stdout, done.stderr)
