"""Other people's clients push to the registry and pull from it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import fixtures
from support.peers import call, require, require_root
from support.run_daemons import containerd, dockerd
from support.serve_registry import Registry, layout_repositories, registry
from support.serve_tls import certificate

from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.serve import Htpasswd, Options, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.peers


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Registry]:
    with registry(layout_repositories(tmp_path / "served")) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Registry]:
    """A registry of the fixture images."""
    fixtures.build(tmp_path / "served")
    with registry(layout_repositories(tmp_path / "served"), read_only=True) as running:
        yield running


def _skopeo(*arguments: str | Path, tls: str = "--tls-verify=false") -> str:
    require("skopeo")
    verb, *rest = arguments
    return call("skopeo", verb, tls, *rest)


@pytest.fixture
def storage() -> Iterator[list[str]]:
    """Options that give podman and buildah a storage of their own; they want a short path."""
    require_root()
    with tempfile.TemporaryDirectory(prefix="serve-") as path:
        yield ["--root", f"{path}/storage", "--runroot", f"{path}/run", "--storage-driver", "vfs"]


@pytest.mark.parametrize("name", ["hello:1.0", "layers:1.0", "zstd:1.0", "hostile-zip-slip:1.0"])
def test_skopeo_pulls_what_is_served(images: Registry, name: str, tmp_path: Path) -> None:
    source = f"docker://{images.server.address}/{name}"
    require("skopeo")
    call(
        "skopeo",
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
        source,
        f"oci:{tmp_path}/pulled:x",
    )
    raw = call("skopeo", "inspect", "--raw", f"oci:{tmp_path}/pulled:x")
    assert raw == _skopeo("inspect", "--raw", source)
    assert (
        json.loads((tmp_path / "pulled/index.json").read_text())["manifests"][0]["digest"]
        == fixtures.digests()[name]
    )


def test_skopeo_lists_tags(images: Registry) -> None:
    listed = json.loads(_skopeo("list-tags", f"docker://{images.server.address}/hello"))
    assert listed["Tags"] == ["1.0"]


@pytest.mark.parametrize("name", ["hello:1.0", "layers:1.0", "zstd:1.0", "artifact:1.0"])
def test_skopeo_pushes_and_nothing_changes(empty: Registry, name: str) -> None:
    require("skopeo")
    target = f"docker://{empty.server.address}/some/where:pushed"
    source = f"oci:{fixtures.layout()}:{name}"
    call("skopeo", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", source, target)
    response = empty.http.get("/v2/some/where/manifests/pushed")
    assert response.headers["docker-content-digest"] == fixtures.digests()[name]


def test_skopeo_pushes_docker_images(empty: Registry) -> None:
    require("skopeo")
    target = f"docker://{empty.server.address}/docker:1"
    call(
        "skopeo",
        "copy",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        f"oci:{fixtures.layout()}:layers:1.0",
        target,
    )
    response = empty.http.get("/v2/docker/manifests/1")
    assert response.headers["content-type"] == "application/vnd.docker.distribution.manifest.v2+json"


def test_skopeo_mounts_between_repositories(empty: Registry, tmp_path: Path) -> None:
    require("skopeo")
    address = empty.server.address
    source = f"oci:{fixtures.layout()}:layers:1.0"
    call("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{address}/first:1")
    call(
        "skopeo",
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{address}/first:1",
        f"docker://{address}/second:1",
    )
    moved = [one for one in empty.served if one.method == "PATCH" and one.path.startswith("/v2/second/")]
    assert moved == []


def test_skopeo_deletes(empty: Registry) -> None:
    require("skopeo")
    target = f"docker://{empty.server.address}/a:1"
    call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{fixtures.layout()}:layers:1.0", target)
    _skopeo("delete", target)
    assert empty.http.get("/v2/a/manifests/1").status_code == 404


def test_skopeo_syncs_a_whole_repository(images: Registry, tmp_path: Path) -> None:
    require("skopeo")
    call(
        "skopeo",
        "sync",
        "--all",
        "--src-tls-verify=false",
        "--src",
        "docker",
        "--dest",
        "dir",
        f"{images.server.address}/hello",
        tmp_path / "synced",
    )
    assert (tmp_path / "synced" / "hello:1.0" / "manifest.json").exists()


def test_podman_pulls_and_pushes(images: Registry, empty: Registry, storage: list[str]) -> None:
    require("podman")
    podman = ["podman", *storage]
    call(*podman, "pull", "--quiet", "--tls-verify=false", f"{images.server.address}/hello:1.0")
    call(
        *podman,
        "push",
        "--quiet",
        "--tls-verify=false",
        f"{images.server.address}/hello:1.0",
        f"docker://{empty.server.address}/by/podman:1",
    )
    layers = empty.http.get("/v2/by/podman/manifests/1").json()["layers"]
    assert len(layers) == 2
    for layer in layers:
        blob = empty.http.get(f"/v2/by/podman/blobs/{layer['digest']}")
        assert len(blob.content) == layer["size"]


def test_buildah_builds_upon_what_it_pulls_and_pushes_it(
    images: Registry, empty: Registry, storage: list[str], tmp_path: Path
) -> None:
    require("buildah")
    buildah = ["buildah", *storage]
    container = call(*buildah, "from", "--tls-verify=false", f"{images.server.address}/hello:1.0").strip()
    (tmp_path / "note").write_text("added\n")
    call(*buildah, "copy", "--quiet", container, tmp_path / "note", "/note")
    call(
        *buildah,
        "commit",
        "--quiet",
        "--tls-verify=false",
        container,
        f"docker://{empty.server.address}/by/buildah:1",
    )
    manifest = empty.http.get("/v2/by/buildah/manifests/1").json()
    assert len(manifest["layers"]) == 3
    call(*buildah, "rm", container)


@pytest.fixture
def daemons() -> Iterator[Path]:
    """A directory for a daemon; its sockets want a short path."""
    require_root()
    with tempfile.TemporaryDirectory(prefix="serve-") as path:
        yield Path(path)


def test_containerd_pulls_and_pushes_and_nothing_changes(
    images: Registry, empty: Registry, daemons: Path
) -> None:
    require("containerd", "ctr")
    name, pushed = f"{images.server.address}/hello:1.0", f"{empty.server.address}/by/containerd:1"
    with containerd(daemons, Path("runc")) as engine:
        words = ("--plain-http", "--all-platforms", "--snapshotter", "native")
        engine.call("images", "pull", *words, name, check=True)
        engine.call("images", "push", "--plain-http", pushed, name, check=True)
    response = empty.http.get("/v2/by/containerd/manifests/1")
    assert response.headers["docker-content-digest"] == fixtures.digests()["hello:1.0"]


def test_docker_pulls_and_pushes(images: Registry, empty: Registry, daemons: Path) -> None:
    require("docker", "dockerd", "containerd")
    name, pushed = f"{images.server.address}/hello:1.0", f"{empty.server.address}/by/docker:1"
    with dockerd(daemons, Path("runc")) as engine:
        pulled = engine.call("pull", name, check=True)
        assert fixtures.digests()["hello:1.0"] in pulled.stdout
        engine.call("tag", name, pushed, check=True)
        engine.call("push", pushed, check=True)
        engine.call("rmi", name, pushed, check=True)
        engine.call("pull", pushed, check=True)
    layers = empty.http.get("/v2/by/docker/manifests/1").json()["layers"]
    assert [empty.http.head(f"/v2/by/docker/blobs/{layer['digest']}").status_code for layer in layers] == [
        200,
        200,
    ]


def test_clients_log_in_over_tls(tmp_path: Path) -> None:
    require("skopeo", "htpasswd")
    call("htpasswd", "-Bbc", tmp_path / "users", "ann", "right")
    cert, key = certificate(tmp_path / "certs")
    fixtures.build(tmp_path / "served")
    repositories = LayoutRepositories(LayoutStore(tmp_path / "served"))
    options = Options(passwords=Htpasswd(tmp_path / "users"))
    with Server(repositories, options=options, tls_cert=cert, tls_key=key) as server:
        source = f"docker://localhost:{server.address.rpartition(':')[2]}/hello:1.0"
        trust = ("--cert-dir", tmp_path / "certs")
        inspected = call("skopeo", "inspect", "--raw", *trust, "--creds", "ann:right", source)
        assert json.loads(inspected)["schemaVersion"] == 2
        for creds in (("--creds", "ann:wrong"), ("--no-creds",)):
            refused = subprocess.run(
                ["skopeo", "inspect", *trust, *creds, source], capture_output=True, text=True, check=False
            )
            assert refused.returncode != 0
            assert "authentication required" in refused.stderr or "unauthorized" in refused.stderr
