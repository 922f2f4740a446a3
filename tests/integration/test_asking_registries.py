"""What the command line says, and what it does, where a registry or a file has not what was asked for."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.fixtures import digests, layout
from support.registry_process import PASSWORD, USER

if TYPE_CHECKING:
    from pathlib import Path

    from support.command import Ocitool

IMAGE = f"oci:{layout()}:hello:1.0"
pytestmark = pytest.mark.registry


@pytest.fixture
def app(ocitool: Ocitool, open_registry: str) -> str:
    """A repository with an image that is tagged 1."""
    ocitool("--quiet", "copy", IMAGE, f"{open_registry}/asked/app:1")
    return f"{open_registry}/asked/app"


def test_a_tag_that_is_not_there_names_the_command_that_lists_them(ocitool: Ocitool, app: str) -> None:
    assert ocitool("pull", f"{app}:2", code=10).err.endswith(f"\n  what there is: ocitool tags {app}\n")


def test_a_registry_that_deletes_no_tags_may_delete_images(ocitool: Ocitool, app: str) -> None:
    assert "--digest" in ocitool("delete", f"{app}:1", code=16).err
    assert ocitool("delete", "--digest", f"{app}:1").result == digests()["hello:1.0"]


def test_a_registry_that_takes_no_sparse_index_is_said_to_be_one(ocitool: Ocitool, app: str) -> None:
    told = ocitool(
        "copy", "--sparse", "--platform", "linux/arm64", f"{app}:1", f"{app}-sparse:1", code=12
    ).err
    assert told.endswith("leave out --sparse, for a smaller one\n")


def test_a_directory_of_certificates_that_is_not_there_is_an_error(ocitool: Ocitool, app: str) -> None:
    told = ocitool("tags", "--cert-dir", "none", app, code=10).err
    assert told == "ocitool: there is no directory none to look for certificates in\n"


def test_a_file_of_credentials_that_is_not_there_is_an_error_but_for_login(
    ocitool: Ocitool, guarded: str
) -> None:
    told = ocitool("tags", "--authfile", "auth.json", f"{guarded}/app", code=10).err
    assert told == "ocitool: there is no file auth.json to look for credentials in\n"
    ocitool("login", "--authfile", "auth.json", "-u", USER, "--password-stdin", guarded, stdin=PASSWORD)
    ocitool("copy", "--authfile", "auth.json", IMAGE, f"{guarded}/app:1")
    assert ocitool("tags", "--authfile", "auth.json", f"{guarded}/app").result == "1"


@pytest.mark.parametrize(("command", "code"), [(["digest"], 10), (["run"], 125), (["diff", IMAGE], 10)])
def test_a_path_that_was_meant_is_pointed_out(
    ocitool: Ocitool, app: str, command: list[str], code: int
) -> None:
    """A name without ./ is a reference, and mostly a mistake where there is such a directory."""
    name = f"{app.partition('/')[0]}/none"
    (ocitool.home / name).mkdir(parents=True)
    told = ocitool(*command, name, code=code).err
    assert f"  {name} is a directory too: ./{name} would be that\n" in told


def test_an_image_for_docker_keeps_its_full_name(ocitool: Ocitool, app: str, tmp_path: Path) -> None:
    ocitool("pull", f"{app}:1", f"docker-archive:{tmp_path}/pulled.tar")
    ocitool("copy", f"{app}:1", f"docker-archive:{tmp_path}/copied.tar")
    for name in ("pulled.tar", "copied.tar"):
        with tarfile.open(tmp_path / name) as archive:
            member = archive.extractfile("manifest.json")
            assert member is not None
            assert json.load(member)[0]["RepoTags"] == [f"{app}:1"]


def test_an_image_that_is_pulled_by_its_digest_gets_no_name(ocitool: Ocitool, app: str) -> None:
    ocitool("pull", f"{app}@{digests()['hello:1.0']}", "oci:pulled")
    ocitool("copy", f"{app}@{digests()['hello:1.0']}", "oci:copied")
    assert ocitool("tags", "oci:pulled").out == ocitool("tags", "oci:copied").out == ""
    assert ocitool("inspect", "oci:pulled").out.startswith("digest: ")
