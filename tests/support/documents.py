"""Shell sessions in documents, run as they are written."""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support import ordinary

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADDRESS = "127.0.0.1:5000"
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


_FILE = re.compile(r"^`([\w.-]+)`:\n\n```[a-z]+\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command of a document, and the lines that it is said to print."""

    command: str
    lines: tuple[str, ...]


def steps(document: str) -> Iterator[Step]:
    """The commands of all blocks that show a session: lines that begin with `$ `, and what follows each."""
    for block in _BLOCK.findall(document):
        if block.startswith("$ "):
            for part in block.removeprefix("$ ").split("\n$ "):
                command, *lines = part.splitlines()
                yield Step(command, tuple(lines))


def files(document: str) -> Iterator[tuple[str, str]]:
    """The files that a document shows: each stands below its name."""
    yield from _FILE.findall(document)


def free_ports() -> Iterator[int]:
    """Ports of four digits that are free: the kernel gives none of them to anybody who asks for any port."""
    for port in random.sample(range(5101, 9999), 9999 - 5101):
        try:
            with socket.create_server(("127.0.0.1", port)):
                yield port
        except OSError:
            continue


class Shell:
    """One shell in which the commands of a document run, with a home of its own and a free port."""

    def __init__(self, directory: Path, home: Path, *, as_nobody: bool = False) -> None:
        self._address = f"127.0.0.1:{next(free_ports())}"
        self._shell = subprocess.Popen(
            ordinary.command("bash", "--norc") if as_nobody else ["bash", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env={
                **os.environ,
                "HOME": str(home),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
        )

    def write(self, file: Path, text: str) -> None:
        """Write a file that a document shows, with the address that stands for the document's own."""
        file.write_text(text.replace(_ADDRESS, self._address))

    def run(self, step: Step) -> list[str]:
        """What a command prints, with the document's own port, in no order that threads decide."""
        assert self._shell.stdin is not None
        mark = secrets.token_hex(8)
        command = step.command.replace(_ADDRESS, self._address)
        self._shell.stdin.write(f"{command}\n")
        self._shell.stdin.flush()
        # What runs in the background says its lines when it likes; the next command waits for them.
        printed = [self._line() for _ in step.lines if command.endswith("&")]
        self._shell.stdin.write(f"echo {mark}\n")
        self._shell.stdin.flush()
        while (line := self._line()) != mark:
            printed.append(line)
        return normal(printed)

    def _line(self) -> str:
        assert self._shell.stdout is not None
        line = self._shell.stdout.readline()
        assert line, "the shell has ended"
        return line.removesuffix("\n").replace(self._address, _ADDRESS)

    def close(self) -> None:
        """End the shell and what it started in the background."""
        self._shell.communicate("kill $(jobs -p) 2>/dev/null; wait", timeout=60)


def normal(lines: list[str] | tuple[str, ...]) -> list[str]:
    """Lines without what differs from run to run: the order in which blobs arrive, the width of columns."""
    kept = [" ".join(line.split()) if "  " in line.strip() else line for line in lines if line]
    moved = iter(sorted(line for line in kept if line.startswith("copied ")))
    return [next(moved) if line.startswith("copied ") else line for line in kept]
