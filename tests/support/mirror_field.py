"""Two registries to mirror between, and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocitool.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import Ocitool
    from support.serve_registry import Registry

    from ocitool.registry import Client, RegistryStore


@dataclass
class Field:
    """What a test of mirroring needs.

    Attributes:
        up: the registry to read from.
        down: host:port of the one to write to.
        run: ocitool, as a process of its own.
        work: an empty directory.
    """

    up: Registry
    down: str
    run: Ocitool
    work: Path
    client: Client
    kind: str
    file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.file = self.work / "mirror.yaml"

    @property
    def up_host(self) -> str:
        return self.up.server.url.removeprefix("http://")

    def above(self, name: str) -> RegistryStore:
        return self.client.repository(Reference.parse(f"{self.up_host}/{name}"))

    def below(self, name: str) -> RegistryStore:
        return self.client.repository(Reference.parse(f"{self.down}/{name}"))

    def write(self, rules: str, **more: str) -> Path:
        """Write a mirror file; UP and DOWN stand for the registries."""
        text = f"version: 1\nsources:\n{rules}\n" + "".join(f"{k}: {v}\n" for k, v in more.items())
        self.file.write_text(text.replace("UP", self.up_host).replace("DOWN", self.down))
        return self.file
