"""attach, fetch, sign and verify on layouts, and images that are used only where they are signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fixtures import digests
from support.trust_keys import KINDS, save

from ocitool.digest import Digest
from ocitool.trust import simplesigning

if TYPE_CHECKING:
    from support.command import Cli

HELLO = digests()["hello:1.0"]
TAG = simplesigning.tag_of(Digest.parse(HELLO))


@pytest.fixture
def image(cli: Cli, images: str, tmp_path: Path) -> str:
    """An image of two platforms in a layout of its own."""
    location = f"oci:{tmp_path / 'layout'}:team/app:1"
    cli("copy", f"{images}:hello:1.0", location)
    return location


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "keys", KINDS["p256"]())


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return save(tmp_path / "keys", KINDS["ed25519"](), name="stranger")[1]


def test_what_is_signed_is_verified_and_named_by_its_digest(
    cli: Cli, image: str, key: tuple[Path, Path]
) -> None:
    private, public = key
    assert cli("sign", image, "--key", private).out == f"{HELLO}\n"
    done = cli("verify", image, "--key", public)
    assert done.out == f"{HELLO}\n"
    assert done.err == f"signed by {public} as team/app\n"
    assert f"team/app:{TAG}" in cli("tags", image).out
    again = cli("sign", image, "--key", private)
    assert (again.out, again.err) == (f"{HELLO}\n", f"{HELLO} is signed so already\n")


def test_a_platform_is_verified_by_way_of_its_index(cli: Cli, image: str, key: tuple[Path, Path]) -> None:
    private, public = key
    arm = cli("digest", image, "--platform", "linux/arm64").result
    cli("sign", image, "--key", private)
    assert cli("verify", image, "--key", public, "--platform", "linux/arm64").result == arm
    by_digest = f"{image.partition(':team')[0]}@{arm}"
    assert "is not signed by" in cli("verify", by_digest, "--key", public, code=13).err
    cli("sign", image, "--key", private, "--platform", "linux/arm64")
    cli("verify", f"{image.rpartition(':')[0]}:1", "--key", public)


def test_recursive_signs_every_manifest(cli: Cli, image: str, key: tuple[Path, Path]) -> None:
    private, public = key
    done = cli("sign", image, "--key", private, "--recursive", "--identity", "example.test/app")
    children = [item["digest"] for item in json.loads(cli("manifest", image).out)["manifests"]]
    assert done.out == f"{HELLO}\n"
    assert done.err == "".join(f"signed {digest}\n" for digest in children)
    assert sum(name.endswith(".sig") for name in cli("tags", image).out.split()) == 3
    cli("verify", image, "--key", public, "--identity", "example.test/app")


def test_another_key_and_other_words_are_not_enough(
    cli: Cli, image: str, key: tuple[Path, Path], stranger: Path
) -> None:
    private, public = key
    cli("sign", image, "--key", private, "--annotation", "build=7", "--annotation", "stage=test")
    cli("verify", image, "--key", public, "--annotation", "build=7")
    for more in (("--annotation", "build=8"), ("--identity", "other"), ("--key", stranger)):
        assert cli("verify", image, "--key", public, *more, code=13).out == ""
    assert "is not signed by" in cli("verify", image, "--key", stranger, code=13).err
    cli("verify", image, "--any", "--key", stranger, "--key", public)


def test_what_refuses_a_signature_says_what_there_is(
    cli: Cli, image: str, key: tuple[Path, Path], stranger: Path
) -> None:
    assert "there is no signature of it" in cli("verify", image, "--key", stranger, code=13).err
    cli("sign", image, "--key", key[0])
    assert "is a signature by another key" in cli("verify", image, "--key", stranger, code=13).err


def test_an_encrypted_key_takes_its_password_from_a_file_or_the_environment(
    cli: Cli, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = save(tmp_path / "locked", KINDS["ed25519"](), b"secret")
    assert "--key-password-file" in cli("sign", image, "--key", private, code=2).err
    (tmp_path / "password").write_text("secret\n")
    cli("sign", image, "--key", private, "--key-password-file", tmp_path / "password")
    monkeypatch.setenv("OCITOOL_KEY_PASSWORD", "wrong")
    assert "its password is another" in cli("sign", image, "--key", private, code=14).err
    monkeypatch.setenv("OCITOOL_KEY_PASSWORD", "secret")
    cli("sign", image, "--key", private)
    cli("bundle", "create", tmp_path / "a.bundle", image, "--sign-key", private)
    cli("bundle", "verify", tmp_path / "a.bundle", "--key", public)
    missing = cli("sign", image, "--key", private, "--key-password-file", tmp_path / "none", code=1)
    assert "can't be read" in missing.err


def test_an_image_without_a_repository_needs_to_be_told_what_it_is_called(
    cli: Cli, images: str, key: tuple[Path, Path], tmp_path: Path
) -> None:
    location = f"oci:{tmp_path / 'other'}:1"
    cli("copy", f"{images}:layers:1.0", location)
    assert "--identity" in cli("sign", location, "--key", key[0], code=2).err
    cli("sign", location, "--key", key[0], "--identity", "example.test/layers")
    cli("verify", location, "--key", key[1], "--identity", "example.test/layers")


def test_nothing_can_be_signed_or_attached_in_an_archive(
    cli: Cli, images: str, key: tuple[Path, Path], tmp_path: Path
) -> None:
    archive = f"oci-archive:{tmp_path / 'a.tar'}"
    cli("copy", f"{images}:layers:1.0", archive)
    cli("sign", archive, "--key", key[0], "--identity", "x", code=16)
    cli("attach", archive, key[1], "--artifact-type", "text/plain", code=16)


def test_in_the_local_store_a_signature_is_found_by_the_image_s_name(
    cli: Cli, images: str, key: tuple[Path, Path]
) -> None:
    cli("copy", f"{images}:hello:1.0", "store:example.test/app:1")
    cli("sign", "store:example.test/app:1", "--key", key[0])
    assert "as example.test/app" in cli("verify", "store:example.test/app:1", "--key", key[1]).err


def test_an_image_is_copied_and_unpacked_only_where_it_is_signed(
    cli: Cli, image: str, key: tuple[Path, Path], stranger: Path, tmp_path: Path
) -> None:
    private, public = key
    cli("sign", image, "--key", private)
    there = tmp_path / "there"
    for command, target in (("copy", f"oci:{there}:1"), ("unpack", there)):
        assert "is not signed by" in cli(command, image, target, "--verify-key", stranger, code=13).err
        cli(command, image, target, "--verify-key", public, "--verify-key", stranger, code=13)
        assert not there.exists()
    assert cli("copy", image, f"oci:{there}:1", "--verify-key", public).out == f"{HELLO}\n"
    cli("unpack", image, tmp_path / "bundle", "--verify-key", public)
    cli("run", "--verify-key", stranger, image, code=125)


def test_a_key_in_the_environment_is_asked_for_as_well(
    cli: Cli, image: str, stranger: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OCITOOL_RUN_VERIFY_KEYS", str(stranger))
    monkeypatch.setenv("OCITOOL_COPY_VERIFY_KEYS", str(stranger))
    assert "is not signed by" in cli("run", image, code=125).err
    cli("copy", image, f"oci:{tmp_path / 'there'}:1", code=13)


def test_a_bundle_s_files_are_signed_by_nobody(
    cli: Cli, image: str, key: tuple[Path, Path], tmp_path: Path
) -> None:
    cli("unpack", image, tmp_path / "bundle")
    assert "is for images" in cli("run", "--verify-key", key[1], tmp_path / "bundle", code=125).err


def test_with_a_key_the_registry_is_asked_which_pull_never_forbids(
    cli: Cli, key: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("unpack", "example.test/app:1", tmp_path / "bundle", "--pull", "never", "--verify-key", key[1])
    assert "--pull never forbids that" in cli(*words, code=2).err


def test_files_are_attached_listed_and_fetched(
    cli: Cli, image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sbom.json").write_text("{}")
    (tmp_path / "a:b").write_text("odd")
    typed = f"{tmp_path / 'sbom.json'}:application/spdx+json"
    words = ("attach", image, typed, tmp_path / "a:b", "--artifact-type", "application/spdx+json")
    digest = cli(*words, "--annotation", "made.by=us").result
    assert cli(*words, "--annotation", "made.by=us").result == digest
    assert digest in cli("referrers", image, "--artifact-type", "application/spdx+json").out
    artifact = f"{image.partition(':team')[0]}@{digest}"
    manifest = json.loads(cli("manifest", artifact).out)
    assert manifest["annotations"] == {"made.by": "us"}
    assert [layer["mediaType"] for layer in manifest["layers"]] == [
        "application/spdx+json",
        "application/octet-stream",
    ]
    out = tmp_path / "out"
    assert cli("fetch", artifact, out).out == f"{out / 'sbom.json'}\n{out / 'a:b'}\n"
    assert "is there already" in cli("fetch", artifact, out, code=17).err
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    dated = cli(*words).result
    manifest = json.loads(cli("manifest", f"{image.partition(':team')[0]}@{dated}").out)
    assert manifest["annotations"] == {"org.opencontainers.image.created": "2023-11-14T22:13:20Z"}


def test_an_image_s_one_artifact_of_a_type_needs_no_digest(
    cli: Cli, image: str, key: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("fetch", image, tmp_path / "out", "--artifact-type", "text/plain")
    assert "nothing of the type text/plain" in cli(*words, code=10).err
    one = cli("attach", image, key[1], "--artifact-type", "text/plain").result
    assert cli(*words).out == f"{tmp_path / 'out' / key[1].name}\n"
    two = cli("attach", image, key[0], "--artifact-type", "text/plain").result
    told = cli(*words, code=17).err
    assert one in told
    assert two in told


def test_files_are_attached_to_one_platform_where_that_is_asked_for(
    cli: Cli, image: str, key: tuple[Path, Path]
) -> None:
    cli("attach", image, key[1], "--artifact-type", "text/plain", "--platform", "linux/arm64")
    arm = cli("digest", image, "--platform", "linux/arm64").result
    assert "text/plain" not in cli("referrers", image).out
    assert "text/plain" in cli("referrers", f"{image.partition(':team')[0]}@{arm}").out
