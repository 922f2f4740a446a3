"""The fixture images are what digests.json pins, and each is what its README row says."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from support import fixtures
from support.peers import require

if TYPE_CHECKING:
    from pathlib import Path


def _index(layout: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return entries


def _blob(layout: Path, digest: str) -> bytes:
    algorithm, _, encoded = digest.partition(":")
    return (layout / "blobs" / algorithm / encoded).read_bytes()


def _manifest(layout: Path, name: str) -> Any:
    manifest = json.loads(_blob(layout, fixtures.digests()[name]))
    return (
        json.loads(_blob(layout, manifest["manifests"][0]["digest"])) if "manifests" in manifest else manifest
    )


def _tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_rebuilding_gives_the_pinned_digests(tmp_path: Path) -> None:
    fixtures.build(tmp_path / "layout")
    names = [
        entry.get("annotations", {}).get("org.opencontainers.image.ref.name") or entry["artifactType"]
        for entry in _index(tmp_path / "layout")
    ]
    digests = [entry["digest"] for entry in _index(tmp_path / "layout")]
    assert dict(zip(names, digests, strict=True)) == fixtures.digests()


def test_building_again_changes_nothing(tmp_path: Path) -> None:
    fixtures.build(tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    fixtures.build(tmp_path)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_building_repairs_a_damaged_layout(tmp_path: Path) -> None:
    fixtures.build(tmp_path)
    whole = _tree(tmp_path)
    (tmp_path / "index.json").write_bytes(b"{")
    next((tmp_path / "blobs" / "sha256").iterdir()).unlink()
    fixtures.build(tmp_path)
    assert _tree(tmp_path) == whole


def test_every_blob_is_what_its_name_says(tmp_path: Path) -> None:
    fixtures.build(tmp_path)
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.mark.parametrize(
    ("architecture", "emulator"), [("amd64", "qemu-x86_64-static"), ("arm64", "qemu-aarch64-static")]
)
def test_hello_prints_echoes_and_exits_on_both_processors(
    architecture: str, emulator: str, tmp_path: Path
) -> None:
    require(emulator)
    layout = fixtures.layout()
    index = json.loads(_blob(layout, fixtures.digests()["hello:1.0"]))
    entry = next(m for m in index["manifests"] if m["platform"]["architecture"] == architecture)
    layers = json.loads(_blob(layout, entry["digest"]))["layers"]
    with tarfile.open(fileobj=io.BytesIO(_blob(layout, layers[-1]["digest"]))) as archive:
        program = archive.extractfile("hello")
        assert program is not None
        (tmp_path / "hello").write_bytes(program.read())
    (tmp_path / "hello").chmod(0o755)

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run([emulator, tmp_path / "hello", *arguments], capture_output=True, check=False)
        return done.returncode, done.stdout.decode()

    assert run()[0] == 0
    assert run()[1].startswith("Hello from a container")
    assert run("some text") == (0, "some text\n")
    assert run("") == (0, "\n")
    assert run("exit", "7") == (7, "")
    assert run("exit", "255") == (255, "")


@pytest.mark.parametrize("name", ["hello:1.0", "layers:1.0", "zstd:1.0"])
def test_layers_have_the_diff_ids_that_their_config_promises(name: str) -> None:
    layout = fixtures.layout()
    manifest = _manifest(layout, name)
    config = json.loads(_blob(layout, manifest["config"]["digest"]))
    archives = [_decompressed(_blob(layout, layer["digest"])) for layer in manifest["layers"]]
    assert ["sha256:" + hashlib.sha256(archive).hexdigest() for archive in archives] == config["rootfs"][
        "diff_ids"
    ]


def _decompressed(stored: bytes) -> bytes:
    if stored[:2] == b"\x1f\x8b":
        return zlib.decompress(stored, wbits=31)
    if tarfile.is_tarfile(io.BytesIO(stored)):
        return stored
    with zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as reader:
        return reader.read()


def test_the_standard_library_reads_every_entry_of_the_friendly_layers() -> None:
    layout = fixtures.layout()
    names = []
    for layer in _manifest(layout, "layers:1.0")["layers"]:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(_blob(layout, layer["digest"])))) as archive:
            members = archive.getmembers()
            names += [member.name for member in members]
            xattrs = {m.name: m.pax_headers for m in members if m.pax_headers}
            if "data/xattrs" in xattrs:
                assert "SCHILY.xattr.user.note" in xattrs["data/xattrs"]
                assert next(m for m in members if m.name == "data/fraction").mtime == pytest.approx(
                    1_700_000_000.123456789
                )
    assert "long/" + "n" * 200 in names
    assert "long/" + "r" * 180 + "/" + "s" * 60 in names
    assert {"data/.wh.drop", "opaque/.wh..wh..opq", "order/.wh..wh..opq", ".wh.removed"} <= set(names)


def test_build_can_write_the_pins_anew(tmp_path: Path) -> None:
    copied = tmp_path / "images"
    shutil.copytree(fixtures.IMAGES, copied, ignore=shutil.ignore_patterns("layout", "__pycache__", "*.json"))
    subprocess.run(
        [sys.executable, copied / "build.py", "--pin", tmp_path / "layout"], check=True, capture_output=True
    )
    assert json.loads((copied / "digests.json").read_bytes()) == fixtures.digests()
