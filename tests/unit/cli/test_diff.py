"""The command that compares two images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.unpack_images import image
from support.unpack_tars import archive, directory, file, symlink

from ocitool.differing import difference
from ocitool.layout import LayoutStore
from ocitool.transfer import copy_graph

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import Cli

BASE = archive(directory(b"etc/"), file(b"etc/gone", b"g"), file(b"etc/changed", b"1"))
MORE = archive(file(b"etc/changed", b"2", mode=0o600), file(b"etc/.wh.gone"), symlink(b"etc/new", b"kept"))
FIRST = image(BASE, config={"Env": ["A=1"]})
SECOND = image(BASE, MORE, config={"Env": ["A=2"], "Cmd": ["sh"]})


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A layout with both images."""
    store = LayoutStore(tmp_path / "layout")
    for name, made in (("first", FIRST), ("second", SECOND)):
        copy_graph(made.store, store, made.manifest, to=name)
    return f"oci:{store.path}"


def test_the_command_says_a_line_for_each_difference(cli: Cli, where: str) -> None:
    layer = difference(FIRST, SECOND).added_layers[0]
    assert cli("diff", f"{where}:first", f"{where}:second").out.splitlines() == [
        f"+ layer {layer}",
        "~ config Cmd: None -> ['sh']",
        "~ config Env: ['A=1'] -> ['A=2']",
        "~ /etc/changed (mode, content)",
        "- /etc/gone",
        "+ /etc/new",
    ]


def test_the_command_says_the_same_to_programs(cli: Cli, where: str) -> None:
    said = json.loads(cli("diff", "--format", "json", f"{where}:first", f"{where}:second").out)
    assert said["config"]["Env"] == {"from": ["A=1"], "to": ["A=2"]}
    assert said["files"][0] == {"how": "changed", "path": "/etc/changed", "fields": ["mode", "content"]}
    assert len(said["layers"]["shared"]) == 1


def test_images_that_are_the_same_say_nothing(cli: Cli, where: str) -> None:
    assert cli("diff", f"{where}:first", f"{where}:first").out == ""
