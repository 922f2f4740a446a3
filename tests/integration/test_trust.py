"""Trust on real registries: what is signed there is used, whatever else may be done there is not."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.fixtures import digests, layout
from support.peers import call, require
from support.serve_registry import MemoryRepositories, registry
from support.stores import put_artifact, put_image, put_json
from support.trust_keys import KINDS, attach, bundle, made, payload, save, statement

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.layout import LayoutStore
from ocitool.layout.repositories import LayoutRepositories
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.serve import Server
from ocitool.trust import PrivateKey, sign, simplesigning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = digests()["hello:1.0"]
TAG = simplesigning.tag_of(Digest.parse(HELLO))


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "keys", KINDS["p256"]())


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    return save(tmp_path / "keys", KINDS["ed25519"](), name="stranger")[1]


@pytest.fixture(params=["docker-registry", "embedded"])
def image(
    request: pytest.FixtureRequest, ocitool: Ocitool, tmp_path: Path, open_registry: str
) -> Iterator[str]:
    """An image of two platforms in a registry that keeps no referrers, and in one that does."""
    if request.param == "docker-registry":
        location = f"{open_registry}/{tmp_path.name.replace('_', '-').strip('-')}/hello:1.0"
        ocitool("copy", f"oci:{layout()}:hello:1.0", location)
        yield location
        return
    with Server(LayoutRepositories(LayoutStore(tmp_path / "served"))) as server:
        ocitool("copy", f"oci:{layout()}:hello:1.0", f"{server.address}/team/hello:1.0")
        yield f"{server.address}/team/hello:1.0"


pytestmark = [pytest.mark.registry]


def test_an_image_is_used_only_where_it_is_signed(
    ocitool: Ocitool, image: str, keys: tuple[Path, Path], stranger: Path, tmp_path: Path
) -> None:
    private, public = keys
    uses: tuple[tuple[str | Path, ...], ...] = (
        ("pull", image),
        ("copy", image, f"oci:{tmp_path / 'copied'}:1"),
        ("unpack", image, tmp_path / "bundle"),
    )
    for words in uses:
        assert "is not signed by" in ocitool(*words, "--verify-key", public, code=13).err
    ocitool("run", "--verify-key", public, image, code=125)
    assert not (tmp_path / "store").exists()
    assert ocitool("sign", image, "--key", private).result == HELLO
    for words in uses:
        assert "is not signed by" in ocitool(*words, "--verify-key", stranger, code=13).err
    child = ocitool("pull", image, "--verify-key", public).result
    assert child == ocitool("verify", image, "--key", public, "--platform", "linux/amd64").result
    assert ocitool(*uses[1], "--verify-key", public).result == HELLO
    ocitool(*uses[2], "--verify-key", public)
    assert "Hello from a container" in ocitool("run", "--verify-key", public, image).out
    # What was pulled before is verified all the same.
    ocitool("run", "--verify-key", stranger, image, code=125)
    ocitool("unpack", image, tmp_path / "other", "--verify-key", stranger, code=13)


def test_signatures_travel_with_their_image(
    ocitool: Ocitool, image: str, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    ocitool("sign", image, "--key", private, "--recursive")
    ocitool("copy", "--referrers", image, "oci:far:2")
    assert ocitool("verify", "oci:far:2", "--key", public).result == HELLO
    ocitool("bundle", "create", "a.bundle", image)
    ocitool("bundle", "apply", "a.bundle", "oci:gap")
    name = image.rpartition(":")[0]
    assert ocitool("verify", f"oci:gap:{image}", "--key", public).err == f"signed by {public} as {name}\n"
    ocitool("unpack", f"oci:gap:{image}", tmp_path / "bundle", "--verify-key", public)


def test_files_are_attached_and_come_back(ocitool: Ocitool, image: str, tmp_path: Path) -> None:
    (tmp_path / "sbom.json").write_text('{"packages": []}')
    (tmp_path / "large").write_bytes(bytes(range(256)) * 20_000)
    kind = "application/spdx+json"
    artifact = ocitool("attach", image, f"sbom.json:{kind}", "large", "--artifact-type", kind).result
    listed = json.loads(ocitool("referrers", image, "--format", "json").out)
    assert [item["digest"] for item in listed] == [artifact]
    assert listed[0]["artifactType"] == kind
    repository = image.rpartition(":")[0]
    ocitool("fetch", f"{repository}@{artifact}", "out")
    for name in ("sbom.json", "large"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes()
    ocitool("copy", "--referrers", image, "oci:far:2")
    ocitool("fetch", f"oci:far@{artifact}", "again")
    assert (tmp_path / "again" / "sbom.json").read_text() == '{"packages": []}'


@pytest.mark.peers
def test_another_tool_reads_what_is_signed_and_openssl_finds_it_right(
    ocitool: Ocitool, image: str, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    require("skopeo")
    if not shutil.which("openssl"):
        pytest.fail("not installed: openssl")
    private, public = keys
    ocitool("sign", image, "--key", private, "--annotation", "build=7")
    signatures = f"docker://{image.rpartition(':')[0]}:{TAG}"
    call("skopeo", "copy", "--src-tls-verify=false", signatures, f"dir:{tmp_path / 'dir'}")
    manifest = json.loads((tmp_path / "dir" / "manifest.json").read_bytes())
    (layer,) = manifest["layers"]
    document = tmp_path / "dir" / layer["digest"].removeprefix("sha256:")
    assert json.loads(document.read_bytes()) == {
        "critical": {
            "identity": {"docker-reference": image.rpartition(":")[0]},
            "image": {"docker-manifest-digest": HELLO},
            "type": "cosign container image signature",
        },
        "optional": {"build": "7"},
    }
    text = layer["annotations"]["dev.cosignproject.cosign/signature"]
    decoded = subprocess.run(["base64", "-d"], input=text.encode(), capture_output=True, check=True).stdout
    (tmp_path / "signature").write_bytes(decoded)
    said = call(
        "openssl", "dgst", "-sha256", "-verify", public, "-signature", tmp_path / "signature", document
    )
    assert said.strip() == "Verified OK"


class Swapping(MemoryStore):
    """A repository whose tag means an evil image from the second time on that it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def resolve(self, ref: str, /) -> Descriptor:
        if ref != "1.0":
            return super().resolve(ref)
        self.asked += 1
        return super().resolve("good" if self.asked == 1 else "evil")


def stock(repository: MemoryStore, private: Path) -> Descriptor:
    """A good image that is signed, and an evil one that is not."""
    repository.tag(put_image(repository, layers=[]), "evil")
    good = put_image(repository, layers=[], fields={"annotations": {"is": "good"}})
    repository.tag(good, "good")
    sign(repository, good, PrivateKey.read(private), identity="example.test/app")
    return good


def test_sg_04_what_is_verified_is_what_is_used_whatever_its_tag_means_by_then(
    ocitool: Ocitool, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    for command in ("pull", "copy", "unpack"):
        repositories = MemoryRepositories()
        repository = repositories.stores["app"] = Swapping()
        good = stock(repository, private)
        target = tmp_path / command
        with registry(repositories) as serving:
            location = f"{serving.server.address}/app:1.0"
            if command == "unpack":
                ocitool("unpack", location, target, "--verify-key", public)
                found = ocitool("digest", f"store:{location}").result
            else:
                found = ocitool(command, location, f"oci:{target}:1", "--verify-key", public).result
                assert ocitool("digest", f"oci:{target}:1").result == found
        assert (found, repository.asked) == (str(good.digest), 1), command


def test_sg_01_a_referrer_of_another_kind_is_no_signature(ocitool: Ocitool, keys: tuple[Path, Path]) -> None:
    private, public = keys
    key = PrivateKey.read(private)
    repositories = MemoryRepositories()
    repository = repositories.stores["app"] = MemoryStore()
    image = put_image(repository)
    repository.tag(image, "1.0")
    put_artifact(repository, image, "application/spdx+json")
    attach(
        repository,
        image,
        bundle(key, statement(image.digest, predicateType="https://slsa.dev/provenance/v1")),
    )
    with registry(repositories) as serving:
        location = f"{serving.server.address}/app:1.0"
        ocitool("verify", location, "--key", public, code=13)
        attach(repository, image, bundle(made(), statement(image.digest)))
        ocitool("verify", location, "--key", public, code=13)
        attach(repository, image, bundle(key, statement(image.digest)))
        assert ocitool("verify", location, "--key", public).result == str(image.digest)


def test_sg_03_a_signature_of_ten_gibibytes_is_not_asked_for(
    ocitool: Ocitool, keys: tuple[Path, Path]
) -> None:
    _, public = keys
    repositories = MemoryRepositories()
    repository = repositories.stores["app"] = MemoryStore()
    image = put_image(repository)
    repository.tag(image, "1.0")
    huge = Descriptor(
        simplesigning.MEDIA_TYPE,
        Digest.of(payload(image.digest)),
        10 << 30,
        annotations={simplesigning.SIGNATURE: "AAAA"},
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": huge.to_json(),
        "layers": [huge.to_json()],
    }
    repository.tag(
        put_json(repository, mediatypes.OCI_MANIFEST, manifest), simplesigning.tag_of(image.digest)
    )
    with registry(repositories) as serving:
        done = ocitool("verify", f"{serving.server.address}/app:1.0", "--key", public, code=13)
        assert "has 10737418240 bytes; at most 1048576 are read" in done.err
        assert not [served for served in serving.served if "/blobs/" in served.path]


def test_sg_07_a_registry_that_fails_is_no_reason_to_trust(ocitool: Ocitool, keys: tuple[Path, Path]) -> None:
    class Failing(MemoryStore):
        def resolve(self, ref: str, /) -> Descriptor:
            if ref.endswith(".sig"):
                raise RuntimeError
            return super().resolve(ref)

    repositories = MemoryRepositories()
    repository = repositories.stores["app"] = Failing()
    image = put_image(repository)
    repository.tag(image, "1.0")
    with registry(repositories) as serving:
        location = f"{serving.server.address}/app:1.0"
        ocitool("verify", location, "--key", keys[1], code=12)
        ocitool("pull", location, "--verify-key", keys[1], code=12)
