"""The guides show what happens: every command of them is run, and prints what stands there."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.documents import Shell, Step, free_ports, normal, steps
from support.peers import require
from support.serve_registry import layout_repositories

from ocitool.serve import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.peers

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
IMAGES = ("hello:1.0", "layers:1.0", "zstd:1.0")
# The guides' own ports. Others of as many digits stand in for them, so that all sizes are the same; the
# inventory has the names in it, so its digest is another one.
PORTS = ("5001", "5002", "5003")
_INVENTORY = re.compile(r"^sha256:[a-f0-9]{64}$|(?<=inventory: )sha256:[a-f0-9]{64}")


def masked(lines: list[str] | tuple[str, ...]) -> list[str]:
    return [_INVENTORY.sub("sha256:…", line) for line in normal(lines)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell beside a registry with images (localhost:5001) and an empty one (localhost:5002)."""
    require("skopeo", "curl", "openssl")
    ports = dict(zip(PORTS, free_ports(), strict=False))

    class Renumbered(Shell):
        def run(self, step: Step) -> list[str]:
            command = step.command
            for shown, port in ports.items():
                command = command.replace(f":{shown}", f":{port}").replace(f" {shown}", f" {port}")
            return super().run(Step(command, step.lines))

        def _line(self) -> str:
            line = super()._line()
            for shown, port in ports.items():
                line = line.replace(f":{port}", f":{shown}")
            return line

    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    with ExitStack() as stack:
        for shown, name in zip(PORTS, ("near", "far"), strict=False):
            repositories = layout_repositories(tmp_path / name)
            stack.enter_context(Server(repositories, port=ports[shown]))
        shell = Renumbered(tmp_path / "work", tmp_path / "home")
        stack.callback(shell.close)
        for image in IMAGES:
            command = (
                f"ocitool -q copy --referrers oci:{fixtures.layout()}:{image} localhost:5001/team/{image}"
            )
            shell.run(Step(f"{command} > copied", ()))
        yield shell


def follow(shell: Shell, name: str) -> None:
    for step in steps((HOW_TO / name).read_text()):
        assert masked(shell.run(step)) == masked(step.lines), step.command


def test_crossing_an_air_gap_goes_as_the_guide_shows_it(shell: Shell) -> None:
    follow(shell, "cross-an-air-gap.md")


def test_serving_a_bundle_goes_as_the_guide_shows_it(shell: Shell) -> None:
    images = "localhost:5001/team/hello:1.0 localhost:5001/team/layers:1.0"
    shell.run(Step(f"ocitool -q bundle create monday.bundle {images} > created 2>&1", ()))
    follow(shell, "serve-a-bundle.md")


def test_caching_a_registry_goes_as_the_guide_shows_it(shell: Shell) -> None:
    follow(shell, "cache-a-registry.md")
