"""docs/reference/json-output.md names every field that `--format json` prints, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.trust_keys import KINDS, save

from ocitool.layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.command import Cli

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "json-output.md"
# Objects whose keys are not ours: the specification's, or names.
FOREIGN = {
    "annotations",
    "signatures[].annotations",
    "config",
    "manifests[]",
    "presumed[]",
    "added[]",
    "removed[]",
}
NAMED = {"diff": "config", "bundle diff": "images"}


def documented(command: str) -> set[str]:
    section = re.search(rf"^## `{command}`\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    return set(re.findall(r"^\| `([^`]+)` \|", section[1], re.MULTILINE))


def fields(value: Any, named: str, path: str = "") -> Iterator[str]:
    """The paths of all fields in a document."""
    if isinstance(value, list):
        for entry in value:
            yield from fields(entry, named, f"{path}[]")
    elif isinstance(value, dict) and path and path == named:
        for entry in value.values():
            yield from fields(entry, named, f"{path}.{{}}")
    elif isinstance(value, dict) and path not in FOREIGN:
        for key, entry in value.items():
            here = f"{path}.{key}" if path else key
            yield here
            yield from fields(entry, named, here)


def printed(cli: Cli, command: str, *documents: tuple[tuple[str | Path, ...], int]) -> set[str]:
    """The fields that a command prints in several cases together."""
    found: set[str] = set()
    for arguments, code in documents:
        out = cli(*command.split(), *arguments, "--format", "json", code=code).out
        found |= set(fields(json.loads(out), NAMED.get(command, "")))
    return found


@pytest.fixture
def damaged(cli: Cli, images: str, tmp_path: Path) -> Path:
    """A layout with an image that lacks a layer, and with content that nothing needs."""
    path = tmp_path / "damaged"
    cli("copy", f"{images}:layers:1.0", f"oci:{path}:1")
    layer = json.loads(cli("manifest", f"oci:{path}:1").out)["layers"][0]["digest"]
    (path / "blobs" / "sha256" / layer.removeprefix("sha256:")).unlink()
    (path / "blobs" / "sha256" / ("a" * 64)).write_bytes(b"loose")
    return path


def test_inspect(cli: Cli, images: str) -> None:
    cases = ((f"{images}:hello:1.0",), 0), ((f"{images}:layers:1.0",), 0)
    assert printed(cli, "inspect", *cases) == documented("inspect")


def test_diff(cli: Cli, images: str) -> None:
    cases = (((f"{images}:layers:1.0", f"{images}:zstd:1.0"), 0),)
    assert printed(cli, "diff", *cases) == documented("diff")


def test_check(cli: Cli, damaged: Path) -> None:
    assert printed(cli, "check", ((f"oci:{damaged}",), 13)) == documented("check")


def test_the_store(cli: Cli, damaged: Path) -> None:
    for command, code in (("store ls", 0), ("store check", 13), ("store gc", 0)):
        assert printed(cli, command, (("--store", damaged), code)) == documented(command)
    assert LayoutStore(damaged).tags() == ["1"]


def test_bundles(cli: Cli, images: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    cli("bundle", "create", one, f"{images}:layers:1.0")
    cli("bundle", "create", two, f"{images}:layers:1.0", f"{images}:zstd:1.0", "--since", one)
    assert printed(cli, "bundle inspect", ((two,), 0)) == documented("bundle inspect")
    assert printed(cli, "bundle diff", ((one, two), 1)) == documented("bundle diff")


def test_verify(cli: Cli, images: str, tmp_path: Path) -> None:
    private, public = save(tmp_path / "keys", KINDS["p256"]())
    image = f"oci:{tmp_path / 'layout'}:team/app:1"
    cli("copy", f"{images}:hello:1.0", image)
    cli("sign", image, "--key", private, "--annotation", "build=7")
    assert printed(cli, "verify", ((image, "--key", public), 0)) == documented("verify")
