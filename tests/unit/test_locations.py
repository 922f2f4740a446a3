"""Locations: what people write, and which store that is."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from ocitool.errors import InvalidReference, OciError
from ocitool.locations import Kind, Location, Session, local_store
from ocitool.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("alpine:3.20", Kind.REGISTRY, "3.20"),
        ("alpine", Kind.REGISTRY, "latest"),
        ("docker://alpine:3.20", Kind.REGISTRY, "3.20"),
        (f"registry.example/org/app:1@{DIGEST}", Kind.REGISTRY, DIGEST),
        ("localhost:5000/app:1", Kind.REGISTRY, "1"),
        ("store:alpine:3.20", Kind.STORE, "docker.io/library/alpine:3.20"),
        (f"store:alpine@{DIGEST}", Kind.STORE, f"docker.io/library/alpine@{DIGEST}"),
        ("oci:dir", Kind.LAYOUT, ""),
        ("oci:dir:1.0", Kind.LAYOUT, "1.0"),
        ("oci:dir:docker.io/library/alpine:3.20", Kind.LAYOUT, "docker.io/library/alpine:3.20"),
        (f"oci:dir@{DIGEST}", Kind.LAYOUT, DIGEST),
        ("oci-archive:image.tar:1.0", Kind.OCI_ARCHIVE, "1.0"),
        ("docker-archive:image.tar:app:1.0", Kind.DOCKER_ARCHIVE, "app:1.0"),
        ("./not-there", Kind.LAYOUT, ""),
        ("/not-there:1.0", Kind.LAYOUT, "1.0"),
    ],
)
def test_every_form_of_location_is_read(text: str, kind: Kind, name: str) -> None:
    location = Location.parse(text)
    assert (location.kind, location.name) == (kind, name)


@pytest.mark.parametrize(
    "text", ["", ":", "oci:", "oci::tag", "store:", "oci:dir@sha256:beef", "UPPER", "a b"]
)
def test_what_is_no_location_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(OciError) as refused:
        Location.parse(text)
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("docker-daemon:app:1", "docker save"),
        ("containers-storage:app", "podman save"),
        ("dir:app", "skopeo copy dir:"),
    ],
)
def test_another_tools_storage_is_refused_with_the_command_that_exports_it(text: str, command: str) -> None:
    with pytest.raises(InvalidReference) as refused:
        Location.parse(text)
    assert command in refused.value.hint


@pytest.mark.parametrize(
    "text",
    ["oci:dir:1.0", "oci:dir:app:1.0", f"oci:dir@{DIGEST}", "oci:dir", "store:docker.io/library/alpine:1"],
)
def test_a_location_reads_back_from_its_text(text: str) -> None:
    assert Location.parse(str(Location.parse(text))) == Location.parse(text)


@pytest.mark.parametrize(
    ("location", "reference", "name"),
    [
        ("oci:dir", "registry.example/app:12", "12"),
        ("oci:dir", "registry.example/app", "latest"),
        ("oci:dir", f"registry.example/app@sha256:{64 * 'a'}", ""),
        ("oci:dir", f"registry.example/app:12@sha256:{64 * 'a'}", "12"),
        ("oci:dir:11", "registry.example/app:12", "11"),
        ("oci-archive:file", "registry.example/app:12", "12"),
        ("docker-archive:file", "registry.example/app:12", "registry.example/app:12"),
        ("docker-archive:file", "alpine", "docker.io/library/alpine:latest"),
        ("docker-archive:file", f"registry.example/app@sha256:{64 * 'a'}", ""),
        ("docker-archive:file:mine:1", "registry.example/app:12", "mine:1"),
    ],
)
def test_an_image_keeps_its_name_where_it_is_given_no_other(location: str, reference: str, name: str) -> None:
    assert Location.parse(location).name_for(Reference.parse(reference)) == name


def test_the_local_store_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert local_store() == tmp_path / "ocitool" / "store"
    monkeypatch.setenv("OCITOOL_STORE", str(tmp_path / "elsewhere"))
    assert local_store() == tmp_path / "elsewhere"


def test_a_session_that_reads_a_layout_makes_no_client_and_no_directory(tmp_path: Path) -> None:
    def no_config() -> NoReturn:
        raise AssertionError

    with Session(no_config, store=tmp_path / "store") as session:
        source = session.source(Location.parse(f"oci:{tmp_path}/none:1"))
        with pytest.raises(OciError):
            source.resolve("1")
    assert not list(tmp_path.iterdir())
