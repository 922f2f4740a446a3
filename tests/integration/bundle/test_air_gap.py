"""Across the gap on real parts: real registries on both sides, and other tools as judges of what arrives."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.bundle_images import put_image
from support.command import Ocitool
from support.peers import call, require, require_root
from support.registry_process import docker_registry
from support.waiting import until

from ocitool.bundle import BundleSource
from ocitool.bundle.repositories import BundleRepositories
from ocitool.layout import LayoutStore
from ocitool.serve import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.registry, pytest.mark.peers]

LAYOUT = fixtures.layout()
IMAGES = ("hello:1.0", "layers:1.0", "zstd:1.0")


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with images that another tool put there."""
    require("skopeo")
    with docker_registry(tmp_path_factory.mktemp("near")) as address:
        for image in IMAGES:
            push_by_skopeo(address, image)
        yield address


def push_by_skopeo(address: str, image: str) -> None:
    call(
        "skopeo", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false",
        f"oci:{LAYOUT}:{image}", f"docker://{address}/team/{image}",
    )  # fmt: skip


@pytest.fixture
def far(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "far").mkdir()
    with docker_registry(tmp_path / "far") as address:
        yield address


def digest_by_skopeo(image: str) -> str:
    flags = ["--tls-verify=false"] if image.startswith("docker:") else []
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", *flags, image], capture_output=True, check=True
    ).stdout
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def test_from_registry_to_registry_and_the_next_time_only_what_is_new(
    ocitool: Ocitool, near: str, far: str, tmp_path: Path
) -> None:
    first = [f"{near}/team/{image}" for image in IMAGES[:2]]
    ocitool("bundle", "create", "one.tar", *first)
    applied = ocitool("bundle", "apply", "one.tar", f"{far}/mirror")
    assert [line.split()[0] for line in applied.out.splitlines()] == [
        f"{far}/mirror/team/{image}" for image in IMAGES[:2]
    ]
    for image in IMAGES[:2]:
        there = f"docker://{far}/mirror/team/{image}"
        assert digest_by_skopeo(there) == fixtures.digests()[image]
        call("skopeo", "copy", "--all", "--src-tls-verify=false", there, f"dir:{tmp_path / image[:4]}")

    ocitool("bundle", "inventory", f"{far}/", "-o", "far.json")
    ocitool(
        "bundle", "create", "two.tar", *(f"{near}/team/{image}" for image in IMAGES), "--have", "far.json"
    )
    described = json.loads(ocitool("bundle", "inspect", "two.tar", "--format", "json").out)
    assert [image["tag"] for image in described["images"] if image["tag"]] == ["1.0"] * 3
    with BundleSource.open(tmp_path / "one.tar") as one, BundleSource.open(tmp_path / "two.tar") as two:
        assert LayoutStore(LAYOUT).resolve("zstd:1.0").digest in two.inventory.content
        assert not two.inventory.content.keys() & one.inventory.content.keys()
        assert two.inventory.presumed.keys() == one.inventory.content.keys()
    ocitool("bundle", "apply", "two.tar", f"{far}/mirror")
    assert digest_by_skopeo(f"docker://{far}/mirror/team/zstd:1.0") == fixtures.digests()["zstd:1.0"]
    again = ocitool("bundle", "apply", "two.tar", f"{far}/mirror")
    assert again.out == ""
    assert "names written: 0, there already: 3" in again.err


def test_cosigns_signatures_cross_from_registry_to_registry(ocitool: Ocitool, near: str, far: str) -> None:
    """What has an image's digest in its tag, by a bundle and by copies through a layout and the store."""
    tag = f"{fixtures.digests()['hello:1.0'].replace(':', '-')}.sig"
    ocitool("copy", f"oci:{LAYOUT}:artifact:1.0", f"{near}/team/signed:{tag}")
    ocitool("copy", f"oci:{LAYOUT}:hello:1.0", f"{near}/team/signed:1.0")
    ocitool("bundle", "create", "one.tar", f"{near}/team/signed:1.0")
    ocitool("bundle", "apply", "one.tar", far)
    assert ocitool("tags", f"{far}/team/signed").out.split() == ["1.0", tag]
    stations = [f"{far}/team/signed:1.0", "oci:there:1.0", "store:example.test/app:1.0"]
    for one, other in itertools.pairwise(stations):
        ocitool("copy", "--referrers", one, other)
    ocitool("push", "--referrers", "example.test/app:1.0", f"{far}/again:1.0")
    assert ocitool("tags", f"{far}/again").out.split() == ["1.0", tag]
    assert ocitool("digest", f"{far}/again:{tag}").result == fixtures.digests()["artifact:1.0"]
    ocitool("copy", f"{far}/team/signed:1.0", "oci:without:1.0")
    assert ocitool("tags", "oci:without").out.split() == ["1.0"]


def test_a_lost_bundle_is_told_and_the_registry_untouched(ocitool: Ocitool, near: str, far: str) -> None:
    ocitool("bundle", "create", "one.tar", f"{near}/team/hello:1.0")
    ocitool(
        "bundle", "create", "two.tar", f"{near}/team/hello:1.0", f"{near}/team/zstd:1.0", "--since", "one.tar"
    )
    refused = ocitool("bundle", "apply", "two.tar", far, code=10)
    assert "the far side lacks" in refused.err
    assert "missing: sha256:" in refused.err
    assert ocitool("bundle", "inventory", f"{far}/").out.count('"digest"') == 0


def test_shared_layers_are_mounted_on_the_far_side(
    ocitool: Ocitool, near: str, far: str, tmp_path: Path
) -> None:
    """Renamed into several repositories, one upload of each blob is enough."""
    ocitool("bundle", "create", "one.tar", f"{near}/team/hello:1.0", f"oci:{LAYOUT}:hello:1.0")
    ocitool("bundle", "apply", "one.tar", far, "--rename", "hello=copies/hello")
    for name in ("team/hello", "copies/hello"):
        assert digest_by_skopeo(f"docker://{far}/{name}:1.0") == fixtures.digests()["hello:1.0"]
    assert ocitool("check", f"{far}/copies/hello:1.0").code == 0


def test_skopeo_podman_and_umoci_read_a_bundle(ocitool: Ocitool, tmp_path: Path) -> None:
    require("skopeo", "podman", "umoci")
    require_root()
    ocitool("bundle", "create", "b.tar", *(f"oci:{LAYOUT}:{image}" for image in IMAGES))
    bundle = tmp_path / "b.tar"
    for image in IMAGES:
        assert digest_by_skopeo(f"oci-archive:{bundle}:{image}") == fixtures.digests()[image]
    call("skopeo", "copy", "--all", f"oci-archive:{bundle}:hello:1.0", f"oci:{tmp_path / 'theirs'}:hello")
    assert (
        LayoutStore(tmp_path / "theirs").resolve("hello").digest
        == LayoutStore(LAYOUT).resolve("hello:1.0").digest
    )
    # podman wants short paths.
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as short:
        storage = ("--root", f"{short}/root", "--runroot", f"{short}/run", "--storage-driver", "vfs")
        image = call("podman", *storage, "pull", "--quiet", f"oci-archive:{bundle}:layers:1.0").strip()
        assert json.loads(call("podman", *storage, "image", "inspect", image))[0]["Id"] == image
    (tmp_path / "unpacked").mkdir()
    call("tar", "-xf", bundle, "-C", tmp_path / "unpacked")
    assert call("umoci", "ls", "--layout", tmp_path / "unpacked").split() == list(IMAGES)
    assert (
        ocitool("copy", f"oci-archive:{bundle}:zstd:1.0", "oci:ours:z").result
        == fixtures.digests()["zstd:1.0"]
    )


def test_skopeo_pulls_from_a_served_bundle_and_gets_referrers(ocitool: Ocitool, tmp_path: Path) -> None:
    require("skopeo")
    ocitool("bundle", "create", "b.tar", f"oci:{LAYOUT}:hello:1.0", "--part-size", "64K")
    with BundleSource.open(tmp_path / "b.tar") as bundle, Server(BundleRepositories(bundle)) as server:
        there = f"{server.address}/hello:1.0"
        assert digest_by_skopeo(f"docker://{there}") == fixtures.digests()["hello:1.0"]
        call(
            "skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{there}", f"dir:{tmp_path / 'd'}"
        )
        assert "sha256:7d03bc48a763" in ocitool("referrers", there).out
        tags = json.loads(
            call("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.address}/hello")
        )
        assert tags["Tags"] == ["1.0"]
        refused = subprocess.run(
            ["skopeo", "copy", "--dest-tls-verify=false", f"oci:{LAYOUT}:zstd:1.0", f"docker://{there}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode


def test_bundle_serve_listens_until_it_is_told_to_stop(ocitool: Ocitool, tmp_path: Path) -> None:
    require("skopeo")
    ocitool("bundle", "create", "b.tar", f"oci:{LAYOUT}:hello:1.0")
    address = tmp_path / "address"
    command = [sys.executable, "-m", "ocitool", "bundle", "serve", "b.tar", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*command, "--address-file", address], cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        told = until(lambda: address.exists() and address.read_text())
        assert digest_by_skopeo(f"docker://{told}/hello:1.0") == fixtures.digests()["hello:1.0"]
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert b"Traceback" not in said


def test_parts_and_inventories_stand_for_bundles_everywhere(ocitool: Ocitool, tmp_path: Path) -> None:
    ocitool("bundle", "create", "b.tar", f"oci:{LAYOUT}:hello:1.0", "--part-size", "64K")
    ocitool("copy", f"oci:{LAYOUT}:hello:1.0", "oci:far:hello:1.0", "--referrers")
    ocitool("bundle", "inventory", "oci:far", "-o", "far.json")
    assert ocitool("bundle", "diff", "b.tar", "far.json").out == ""
    assert ocitool("bundle", "diff", "b.tar.001", "b.tar", "--format", "json").code == 0
    for known in (("--have", "b.tar"), ("--have", "far.json"), ("--since", "b.tar"), ("--since", "far.json")):
        said = ocitool("bundle", "create", "next.tar", f"oci:{LAYOUT}:hello:1.0", *known, "--dry-run").err
        assert "pieces of content: 0 (0 B), presumed on the far side: 11" in said
    assert ocitool("bundle", "create", "next.tar", "--have", "nowhere", f"oci:{LAYOUT}", code=10).err
    (tmp_path / "other.json").write_text("{}")
    assert "is no inventory" in ocitool("bundle", "diff", "b.tar", "other.json", code=14).err


def test_through_a_pipe(ocitool: Ocitool, tmp_path: Path) -> None:
    """What `ssh` would carry: one side writes a stream, the other one reads it."""
    program = f"{sys.executable} -m ocitool"
    script = f"{program} bundle create - oci:{LAYOUT}:hello:1.0 | {program} bundle apply - oci:far"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello:1.0 sha256:")
    assert LayoutStore(tmp_path / "far").tags() == ["hello:1.0"]


def test_a_reader_that_goes_away_makes_create_fail(tmp_path: Path) -> None:
    program = f"{sys.executable} -m ocitool"
    script = f"{program} bundle create - oci:{LAYOUT} | head -c 1000 > /dev/null"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the stream of the bundle: Broken pipe" in done.stderr


def test_a_signed_bundle_needs_its_key(ocitool: Ocitool, tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        call("openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / f"{name}.pem")
        call("openssl", "pkey", "-in", tmp_path / f"{name}.pem", "-pubout", "-out", tmp_path / f"{name}.pub")
    ocitool("bundle", "create", "b.tar", f"oci:{LAYOUT}:hello:1.0", "--sign-key", "ours.pem")
    ocitool("bundle", "verify", "b.tar", "--key", "ours.pub")
    for command in (
        ("verify", "b.tar"),
        ("apply", "b.tar", "oci:far"),
        ("inspect", "b.tar"),
        ("serve", "b.tar"),
    ):
        refused = ocitool("bundle", *command, "--key", "theirs.pub", code=13)
        assert "is not signed by the key theirs.pub" in refused.err
    assert not (tmp_path / "far").exists()
    ocitool("bundle", "create", "plain.tar", f"oci:{LAYOUT}:hello:1.0")
    assert "is not signed" in ocitool("bundle", "verify", "plain.tar", "--key", "ours.pub", code=13).err


def test_each_kind_of_bad_input_has_its_exit_code_and_one_sentence(ocitool: Ocitool, tmp_path: Path) -> None:
    ocitool("bundle", "create", "good.tar", f"oci:{LAYOUT}")
    good = (tmp_path / "good.tar").read_bytes()
    cases = {
        "cut.tar": (good[:-5000], 13, "is truncated"),
        "text.tar": (b"not a bundle" * 1000, 14, "is no tar file"),
        "empty.tar": (b"", 13, "is truncated"),
        "twice.tar": (good + good, 14, "goes on after its end mark"),
    }
    for name, (raw, code, sentence) in cases.items():
        (tmp_path / name).write_bytes(raw)
        for command in (("inspect", name), ("verify", name), ("apply", name, "oci:far")):
            refused = ocitool("bundle", *command, code=code)
            assert sentence in refused.err
            assert refused.out == ""
    assert not (tmp_path / "far").exists()
    assert ocitool("bundle", "verify", "nowhere.tar", code=10).err
    assert "exists already" in ocitool("bundle", "create", "good.tar", f"oci:{LAYOUT}", code=17).err
    assert "has no inventory" in _archive_is_no_bundle(ocitool)


def _archive_is_no_bundle(ocitool: Ocitool) -> str:
    ocitool("copy", f"oci:{LAYOUT}:hello:1.0", "oci-archive:archive.tar:hello")
    return ocitool("bundle", "inspect", "archive.tar", code=14).err


def test_a_damaged_byte_is_named_by_its_path(ocitool: Ocitool, tmp_path: Path) -> None:
    ocitool("bundle", "create", "b.tar", f"oci:{LAYOUT}:hello:1.0")
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        layer = next(one for one in bundle.members.values() if one.size > 6000)
    with (tmp_path / "b.tar").open("r+b") as file:
        file.seek(layer.offset + 100)
        file.write(b"\xff\x00\xff")
    told = ocitool("bundle", "verify", "b.tar", code=13)
    assert told.out.startswith("hello:1.0 > manifests[0] (linux/amd64) > layers[")
    assert len(told.out.splitlines()) == 1
    assert (
        "ocitool: the bundle b.tar is damaged" in ocitool("bundle", "apply", "b.tar", "oci:far", code=13).err
    )
    assert not (tmp_path / "far").exists()


def test_check_repairs_a_layout_and_a_registry_from_one_another(
    ocitool: Ocitool, near: str, far: str, tmp_path: Path
) -> None:
    ocitool("copy", f"{near}/team/hello:1.0", "oci:mine:hello")
    victim = max((tmp_path / "mine" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    raw = victim.read_bytes()
    victim.write_bytes(bytes(len(raw)))
    assert "layers[" in ocitool("check", "oci:mine", code=13).out
    mended = json.loads(
        ocitool("check", "oci:mine", "--repair-from", f"{near}/team/hello:1.0", "--format", "json").out
    )
    assert [fault["repaired"] for fault in mended["faults"]] == [True]
    assert victim.read_bytes() == raw
    # A registry that has lost a blob gets it back.
    ocitool("copy", "oci:mine:hello", f"{far}/app:1")
    digest = f"sha256:{victim.name}"
    call("curl", "-sf", "-X", "DELETE", f"http://{far}/v2/app/blobs/{digest}")
    assert digest in ocitool("check", f"{far}/app:1", code=13).out
    ocitool("check", f"{far}/app:1", "--repair-from", "oci:mine:hello")
    ocitool("check", f"{far}/app:1")


def test_a_lock_file_says_what_the_far_side_has(
    ocitool: Ocitool, near: str, far: str, tmp_path: Path
) -> None:
    (tmp_path / "mirror.yml").write_text(
        json.dumps(
            {
                "version": 1,
                "sync": [
                    {"source": f"{near}/team/hello", "target": f"{far}/team/hello", "type": "repository"}
                ],
            }
        )
    )
    ocitool("mirror", "plan", "mirror.yml", "--lock", "mirror.lock")
    ocitool(
        "bundle",
        "create",
        "b.tar",
        f"{near}/team/hello:1.0",
        f"{near}/team/zstd:1.0",
        "--since",
        "mirror.lock",
    )
    with BundleSource.open(tmp_path / "b.tar") as bundle:
        hello = LayoutStore(LAYOUT).resolve("hello:1.0").digest
        zstd = LayoutStore(LAYOUT).resolve("zstd:1.0").digest
        assert hello in bundle.inventory.presumed
        assert zstd in bundle.inventory.content
    refused = ocitool("bundle", "apply", "b.tar", far, code=10)
    assert "presumes" in refused.err


def test_killed_at_any_moment_apply_goes_on(ocitool: Ocitool, tmp_path: Path) -> None:
    """SIGKILL after more and more time; the layout's names never stand for half an image."""
    layer = os.urandom(3_000_000)
    source = LayoutStore(tmp_path / "near")
    for n in range(4):
        put_image(source, layer[: 700_000 * n + 1], tag=f"app:{n}")
    source.close()
    ocitool("bundle", "create", "b.tar", "oci:near")
    command = [sys.executable, "-m", "ocitool", "-q", "bundle", "apply", "b.tar", "oci:far"]
    for delay in (0.1, 0.25, 0.35, 0.45, 0.6):
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.kill()
        process.wait()
        if (tmp_path / "far" / "oci-layout").exists():
            assert ", 0 faulty" in ocitool("check", "oci:far").err
    ocitool("bundle", "apply", "b.tar", "oci:far")
    assert LayoutStore(tmp_path / "far").tags() == [f"app:{n}" for n in range(4)]
    ocitool("check", "oci:far")
