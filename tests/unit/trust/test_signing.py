"""Signing: what cosign would have written, where it looks, and no more than once."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support import trust_cosign
from support.stores import put, put_image, put_index, put_json
from support.trust_keys import keep, made, payload, save

from ocitool import limits, mediatypes
from ocitool.digest import Digest
from ocitool.errors import Conflict, InvalidContent, UnsafeContent
from ocitool.layout import LayoutStore
from ocitool.memory import MemoryStore
from ocitool.transfer import copy_graph
from ocitool.trust import Policy, PrivateKey, sign, simplesigning, verify

if TYPE_CHECKING:
    from pathlib import Path

    from ocitool.model import Descriptor

KEY, OTHER = made("ours", "ed25519"), made("theirs")
NAME = "example.test/app"


def signatures(store: Any, image: Descriptor, name: str = "") -> dict[str, Any]:
    """The manifest of an image's signatures."""
    with store.fetch(store.resolve(name + simplesigning.tag_of(image.digest))) as reader:
        found: dict[str, Any] = json.loads(reader.read())
    return found


def content(store: MemoryStore, fields: dict[str, Any]) -> bytes:
    return store._content[Digest.parse(fields["digest"])]


def test_the_document_is_the_one_that_cosign_signs() -> None:
    document, _ = trust_cosign.BY_COSIGN
    digest = Digest.of(trust_cosign.MANIFEST)
    name = "192.168.64.2:5000/cosign-signed-single-sample"
    assert simplesigning.document_of(digest, name, {}) == document
    said = simplesigning.document_of(digest, name, {"b": "2", "a": "1"})
    assert said == document.replace(b"null", b'{"a":"1","b":"2"}')


def test_a_signature_is_where_cosign_looks_and_openssl_finds_it_right(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.fail("not installed: openssl")
    private, public = save(tmp_path, made()._key)
    store = MemoryStore()
    image = put_image(store)
    assert sign(store, image, PrivateKey.read(private), identity=NAME) == [image]
    manifest = signatures(store, image)
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert json.loads(content(store, manifest["config"]))["rootfs"]["diff_ids"] == [layer["digest"]]
    (tmp_path / "document").write_bytes(content(store, layer))
    text = layer["annotations"]["dev.cosignproject.cosign/signature"]
    (tmp_path / "signature").write_bytes(base64.b64decode(text))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", public, "-signature", "signature", "document"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "Verified OK", done.stderr


def test_signatures_that_are_there_stay_as_they_are() -> None:
    store = MemoryStore()
    image = put_image(store, media_type=mediatypes.DOCKER_MANIFEST)
    document = payload(image.digest)
    keep(store, image, (document, OTHER.sign(document)), **{"dev.sigstore.cosign/bundle": "{}"})
    before = {**signatures(store, image), "annotations": {"made.by": "another tool"}}
    store.tag(put_json(store, mediatypes.OCI_MANIFEST, before), simplesigning.tag_of(image.digest))
    sign(store, image, KEY, identity=NAME)
    after = signatures(store, image)
    assert after["annotations"] == before["annotations"]
    assert after["layers"][0] == before["layers"][0]
    assert len(after["layers"]) == 2
    assert len(verify(store, image, Policy((KEY.public, OTHER.public)))) == 2


def test_the_same_signature_is_not_made_twice() -> None:
    store = MemoryStore()
    image = put_image(store)
    for key in (KEY, OTHER):
        assert sign(store, image, key, identity=NAME, annotations={"a": "1"}) == [image]
        assert sign(store, image, key, identity=NAME, annotations={"a": "1"}) == []
        assert sign(store, image, key, identity=NAME, annotations={"a": "2"}) == [image]
    assert len(signatures(store, image)["layers"]) == 4


def test_an_ed25519_key_gives_the_same_bytes_every_time() -> None:
    found = []
    for _ in range(2):
        store = MemoryStore()
        image = put_image(store)
        sign(store, image, KEY, identity=NAME)
        found.append(store.resolve(simplesigning.tag_of(image.digest)))
    assert found[0] == found[1]


def test_of_an_index_the_index_is_signed_and_all_below_it_where_that_is_asked_for() -> None:
    store = MemoryStore()
    children = [put_image(store, name, marked=True) for name in ("linux/amd64", "linux/arm64")]
    nested = put_index(store, children[1:])
    index = put_index(store, [children[0], nested])
    assert sign(store, index, KEY, identity=NAME) == [index]
    assert sign(store, index, KEY, identity=NAME, recursive=True) == [children[0], nested, children[1]]
    for desc in (index, nested, *children):
        verify(store, desc, Policy((KEY.public,)))


def test_an_index_that_is_nested_too_deep_is_not_signed() -> None:
    store = MemoryStore()
    desc = put_image(store)
    for _ in range(limits.INDEX_NESTING + 1):
        desc = put_index(store, [desc])
    with pytest.raises(UnsafeContent, match="nested deeper"):
        sign(store, desc, KEY, identity=NAME, recursive=True)


def test_in_a_layout_a_signature_is_beside_its_image_and_goes_where_that_goes(tmp_path: Path) -> None:
    memory, layout, far = MemoryStore(), LayoutStore(tmp_path / "a"), LayoutStore(tmp_path / "b")
    image = put_image(memory)
    copy_graph(memory, layout, image, to="team/app:1")
    sign(layout, image, KEY, identity=NAME, name="team/app:1")
    assert layout.tags() == ["team/app:1", f"team/app:{simplesigning.tag_of(image.digest)}"]
    copy_graph(layout, far, image, ref="team/app:1", to="2", referrers=True)
    verify(far, image, Policy((KEY.public,)), name="2")


def test_something_else_with_the_tag_of_signatures_is_left_alone() -> None:
    store = MemoryStore()
    image = put_image(store)
    store.tag(put_index(store, [image]), simplesigning.tag_of(image.digest))
    with pytest.raises(Conflict, match="names something else"):
        sign(store, image, KEY, identity=NAME)


def test_nobody_adds_a_signature_that_nobody_would_look_at() -> None:
    store = MemoryStore()
    image = put_image(store)
    keep(store, image, *((b'{"n":%d}' % n, b"") for n in range(limits.SIGNATURES)))
    with pytest.raises(Conflict, match="has 100 signatures"):
        sign(store, image, KEY, identity=NAME)


def test_junk_beside_a_signature_is_no_reason_not_to_sign() -> None:
    store = MemoryStore()
    image = put_image(store)
    document = simplesigning.document_of(image.digest, NAME, {})
    keep(store, image, (document, "?"), (document, OTHER.sign(document)))
    assert sign(store, image, KEY, identity=NAME) == [image]


def test_a_manifest_of_signatures_that_breaks_the_specification_is_left_alone() -> None:
    store = MemoryStore()
    image = put_image(store)
    raw = b'{"schemaVersion":2}'
    desc = put(store, "text/plain", raw)
    store._tags[simplesigning.tag_of(image.digest)] = type(desc)(
        mediatypes.OCI_MANIFEST, desc.digest, desc.size
    )
    with pytest.raises(InvalidContent):
        sign(store, image, KEY, identity=NAME)
