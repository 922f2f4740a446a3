"""Verification: what is not exactly a signature by the right key of this very image fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support import trust_cosign
from support.stores import (
    FlakyStore,
    Listless,
    RecordingStore,
    lies,
    put,
    put_artifact,
    put_image,
    put_index,
    put_json,
)
from support.trust_keys import KINDS, attach, bundle, keep, made, payload, statement

from ocitool import mediatypes
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, RegistryError
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.trust import Policy, PublicKey, Signature, dsse, sign, simplesigning, verify

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KEY, OTHER = made("ours"), made("theirs")


@pytest.fixture
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture
def image(store: RecordingStore) -> Descriptor:
    return put_image(store)


def signed(image: Descriptor, **changes: Any) -> tuple[bytes, bytes]:
    """A document about an image, and our signature of it."""
    document = payload(image.digest, **changes)
    return document, KEY.sign(document)


def accepted(store: MemoryStore, image: Descriptor, *keys: PublicKey, **more: Any) -> list[Signature]:
    return verify(store, image, Policy(keys or (KEY.public,), **more))


def refused(store: MemoryStore, image: Descriptor, *keys: PublicKey, note: str = "", **more: Any) -> None:
    with pytest.raises(IntegrityError, match=f"{image.digest} is not signed by") as error:
        accepted(store, image, *keys, **more)
    assert note in " ".join(getattr(error.value, "__notes__", []))


def public(tmp_path: Path, pem: bytes) -> PublicKey:
    path = tmp_path / "cosign.pub"
    path.write_bytes(pem)
    return PublicKey.read(path)


# What passes.


def test_what_cosign_has_signed_passes(store: RecordingStore, tmp_path: Path) -> None:
    image = put(store, mediatypes.DOCKER_MANIFEST, trust_cosign.MANIFEST)
    keep(store, image, trust_cosign.BY_COSIGN)
    (signature,) = accepted(store, image, public(tmp_path, trust_cosign.KEY))
    assert signature.claims.identity == "192.168.64.2:5000/cosign-signed-single-sample"
    assert signature.claims.annotations == {}


def test_what_other_tools_have_signed_passes_and_says_what_it_says(
    store: RecordingStore, tmp_path: Path
) -> None:
    image = put(store, mediatypes.DOCKER_MANIFEST, trust_cosign.MANIFEST)
    keep(store, image, trust_cosign.BY_CONTAINERS_IMAGE)
    (signature,) = accepted(store, image, public(tmp_path, trust_cosign.KEY))
    assert signature.claims.annotations["timestamp"] == 1657296609


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_a_key_has_signed_passes(store: RecordingStore, image: Descriptor, kind: str) -> None:
    key = made("new", kind)
    subject = {"digest": {"sha256": image.digest.hex}, "annotations": {"build": "7"}}
    attach(store, image, bundle(key, statement(image.digest, subject=[subject])))
    (signature,) = accepted(store, image, key.public, annotations={"build": "7"})
    assert signature.media_type == dsse.MEDIA_TYPE


def test_a_signature_that_is_a_referrer_passes(store: RecordingStore, image: Descriptor) -> None:
    kept = keep(store, image, signed(image))
    manifest = json.loads(store._content[kept.digest])
    store.untag(simplesigning.tag_of(image.digest))
    fields = {"artifactType": simplesigning.ARTIFACT_TYPE, "subject": image.to_json()}
    put_json(store, mediatypes.OCI_MANIFEST, {**manifest, **fields})
    accepted(store, image)


def test_what_is_no_signature_does_not_spoil_one(store: RecordingStore, image: Descriptor) -> None:
    keep(
        store,
        image,
        (b"junk", "!"),
        (b"{}", b"junk"),
        (payload(image.digest), OTHER.sign(b"")),
        signed(image),
    )
    attach(store, image, b"junk")
    accepted(store, image)


def test_a_layout_s_names_say_which_repository_a_signature_is_of(
    store: RecordingStore, image: Descriptor
) -> None:
    keep(store, image, signed(image))
    tag = simplesigning.tag_of(image.digest)
    store.tag(store.resolve(tag), f"team/app:{tag}")
    store.untag(tag)
    verify(store, image, Policy((KEY.public,)), name="team/app:1")
    with pytest.raises(IntegrityError):
        verify(store, image, Policy((KEY.public,)), name="team/other:1")


# What does not.


def test_sg_01_an_image_without_a_signature_fails(store: RecordingStore, image: Descriptor) -> None:
    refused(store, image)


def test_sg_01_what_is_signed_is_an_sbom_and_not_the_image(store: RecordingStore, image: Descriptor) -> None:
    put_artifact(store, image, "application/spdx+json")
    attach(store, image, bundle(KEY, statement(image.digest, predicateType="https://spdx.dev/Document")))
    refused(store, image, note="is 'https://spdx.dev/Document', not the signature of an image")


def test_sg_01_a_document_of_another_kind_that_the_key_has_signed_fails(
    store: RecordingStore, image: Descriptor
) -> None:
    keep(store, image, signed(image, type="atomic container signature"))
    refused(store, image, note="'atomic container signature', not the signature of an image")


def test_sg_02_the_entry_of_a_log_makes_no_other_signature_right(
    store: RecordingStore, tmp_path: Path
) -> None:
    entry = {"dev.sigstore.cosign/bundle": trust_cosign.LOG_ENTRY}
    logged = Descriptor(mediatypes.DOCKER_MANIFEST, Digest.parse(trust_cosign.LOGGED_DIGEST), 528)
    key = public(tmp_path, trust_cosign.LOGGED_KEY)
    keep(store, logged, trust_cosign.LOGGED, **entry)
    accepted(store, logged, key)
    other = put_image(store)
    document, signature = trust_cosign.LOGGED
    keep(store, other, (payload(other.digest), signature), (document, signature), **entry)
    refused(store, other, key, note=f"it is of {logged.digest}")


def test_sg_02_a_signature_of_another_image_fails(store: RecordingStore, image: Descriptor) -> None:
    keep(store, image, signed(put_image(store, layers=[b"another"])))
    refused(store, image, note="is a signature by ours, but it is of sha256:")
    attach(store, image, bundle(KEY, statement(Digest.of(b"another"))))
    refused(store, image, note=f"it is of {Digest.of(b'another')}")


def test_sg_02_a_signature_of_other_bytes_fails(store: RecordingStore, image: Descriptor) -> None:
    keep(store, image, (payload(image.digest) + b" ", KEY.sign(payload(image.digest))))
    refused(store, image, note="by another key, or of other bytes")


def test_sg_02_another_type_of_payload_is_another_document(store: RecordingStore, image: Descriptor) -> None:
    document = bundle(KEY, statement(image.digest))
    document["dsseEnvelope"]["payloadType"] = "text/plain"
    attach(store, image, document)
    refused(store, image, note="holds 'text/plain', not a statement")


def test_sg_03_more_signatures_than_anyone_needs_are_not_looked_at(
    store: RecordingStore, image: Descriptor
) -> None:
    junk = [(b'{"n":%d}' % n, b"junk") for n in range(150)]
    keep(store, image, *junk, signed(image))
    store.calls.clear()
    refused(store, image, note="and 95 more")
    assert len(store.asked("fetch")) == 1 + 100
    keep(store, image, signed(image), *junk)
    accepted(store, image)


def test_sg_03_more_referrers_than_anyone_needs_are_not_looked_at(
    store: RecordingStore, image: Descriptor
) -> None:
    for n in range(150):
        put_json(
            store,
            mediatypes.OCI_MANIFEST,
            {
                "schemaVersion": 2,
                "mediaType": mediatypes.OCI_MANIFEST,
                "artifactType": dsse.MEDIA_TYPE,
                "config": put(store, mediatypes.OCI_EMPTY, b"{}").to_json(),
                "layers": [],
                "annotations": {"n": str(n)},
                "subject": image.to_json(),
            },
        )
    store.calls.clear()
    refused(store, image)
    assert len(store.asked("fetch")) == 100


def test_sg_03_a_signature_that_is_too_large_is_not_fetched(store: RecordingStore, image: Descriptor) -> None:
    kept = keep(store, image, signed(image))
    manifest = json.loads(store._content[kept.digest])
    manifest["layers"][0]["size"] = 10 << 30
    desc = put_json(store, mediatypes.OCI_MANIFEST, manifest)
    store.tag(desc, simplesigning.tag_of(image.digest))
    store.calls.clear()
    refused(store, image, note="has 10737418240 bytes; at most 1048576 are read")
    assert store.asked("fetch") == [str(desc.digest)]


def test_sg_05_a_manifest_counts_by_way_of_its_index_and_not_the_other_way_round(
    store: RecordingStore,
) -> None:
    child = put_image(store, marked=True)
    index = put_index(store, [child])
    sign(store, index, KEY, identity="example.test/app")
    accepted(store, index)
    refused(store, child)
    lone = put_index(store, [child], fields={"annotations": {"another": "index"}})
    sign(store, child, KEY, identity="example.test/app")
    accepted(store, child)
    refused(store, lone)


def test_sg_06_an_older_image_that_was_signed_too_fails_where_a_version_is_asked_for(
    store: RecordingStore, image: Descriptor
) -> None:
    keep(store, image, signed(image, optional={"version": "1", "count": 2}))
    accepted(store, image, annotations={"version": "1"})
    refused(store, image, annotations={"version": "2"}, note="but it does not say version=2")
    refused(store, image, annotations={"version": "1", "more": "x"}, note="it does not say more=x")
    refused(store, image, annotations={"count": "2"}, note="it does not say count=2")


def test_a_signature_that_calls_the_image_something_else_fails_where_that_is_asked_for(
    store: RecordingStore, image: Descriptor
) -> None:
    keep(store, image, signed(image))
    accepted(store, image, identity="example.test/app")
    refused(store, image, identity="example.test/other", note="calls the image 'example.test/app', not")


def test_sg_07_without_a_key_nothing_is_verified(store: RecordingStore, image: Descriptor) -> None:
    keep(store, image, signed(image))
    for every in (True, False):
        with pytest.raises(IntegrityError, match="without a key"):
            verify(store, image, Policy((), every=every))


def test_sg_07_of_several_keys_all_have_to_have_signed_unless_one_is_enough(
    store: RecordingStore, image: Descriptor
) -> None:
    both = (KEY.public, OTHER.public)
    keep(store, image, signed(image), signed(image, optional={"again": "1"}))
    with pytest.raises(IntegrityError, match=r"is not signed by theirs$"):
        accepted(store, image, *both)
    (signature,) = accepted(store, image, *both, every=False)
    assert signature.key == KEY.public
    refused(store, image, OTHER.public, every=False)
    sign(store, image, OTHER, identity="example.test/app")
    assert {signature.key for signature in accepted(store, image, *both)} == set(both)


class Broken(MemoryStore):
    """A registry that fails when it is asked for one thing."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    def resolve(self, ref: str, /) -> Descriptor:
        if self.fails == "resolve" and ref.endswith(".sig"):
            raise RegistryError("out of order", status=500)
        return super().resolve(ref)

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        if self.fails == "referrers":
            raise RegistryError("out of order", status=500)
        return super().referrers(desc, artifact_type)


@pytest.mark.parametrize("fails", ["resolve", "referrers"])
def test_sg_07_a_registry_that_fails_is_no_reason_to_trust(fails: str) -> None:
    store = Broken(fails)
    image = put_image(store)
    attach(store, image, bundle(KEY, statement(image.digest)))
    with pytest.raises(RegistryError, match="out of order"):
        accepted(store, image)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"critical":{}}',
        b'{"critical":{"type":1,"image":{"docker-manifest-digest":"DIGEST"},"identity":{}},"optional":null}',
        b'{"critical":null,"critical":{"type":"cosign container image signature"}}',
        b"[" * 1000,
        payload("DIGEST", identity={}),
        payload("DIGEST", image={"Docker-manifest-digest": "DIGEST"}),
        payload("DIGEST", optional=["DIGEST"]),
        payload("DIGEST").replace(b'"optional"', b'"critical":{},"optional"'),
        payload("sha512:DIGEST"),
        payload("DIGEST ") + b"\xff",
    ],
)
def test_sg_07_what_cannot_be_read_fails_though_the_key_has_signed_it(
    store: RecordingStore, image: Descriptor, document: bytes
) -> None:
    document = document.replace(b"DIGEST", str(image.digest).encode())
    keep(store, image, (document, KEY.sign(document)))
    refused(store, image)


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": "application/vnd.dev.sigstore.bundle.v0.1+json"},
        {"verificationMaterial": {"certificate": {"rawBytes": ""}}},
        {"verificationMaterial": None},
        {"dsseEnvelope": None},
        {"dsseEnvelope": {}},
    ],
)
def test_sg_07_a_bundle_that_is_none_of_a_key_fails(
    store: RecordingStore, image: Descriptor, change: dict[str, Any]
) -> None:
    attach(store, image, bundle(KEY, statement(image.digest), **change))
    refused(store, image)


@pytest.mark.parametrize("key", ["payload", "signatures"])
@pytest.mark.parametrize("value", [None, "", "?", [], [{}], [{"sig": "AAAA"}, {"sig": "AAAA"}], [{"sig": 1}]])
def test_sg_07_an_envelope_that_lacks_something_fails(
    store: RecordingStore, image: Descriptor, key: str, value: object
) -> None:
    document = bundle(KEY, statement(image.digest))
    document["dsseEnvelope"][key] = value
    attach(store, image, document)
    refused(store, image)


def test_sg_07_an_envelope_with_a_second_signature_fails(store: RecordingStore, image: Descriptor) -> None:
    document = bundle(KEY, statement(image.digest))
    document["dsseEnvelope"]["signatures"] *= 2
    attach(store, image, document)
    refused(store, image, note="has 2 signatures, not one")


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v9"},
        {"subject": []},
        {"subject": None},
        {"subject": ["DIGEST"]},
        {"subject": [{"digest": {"sha256": "ab" * 32}}, {"digest": {"sha256": "DIGEST"}}]},
        {"subject": [{"digest": {"sha256": "DIGEST"}}, {"digest": {"sha256": "ab" * 32}}]},
        {"subject": [{"digest": {"sha512": "DIGEST"}}]},
        {"subject": [{"name": "DIGEST"}]},
    ],
)
def test_sg_07_a_statement_about_something_else_fails(
    store: RecordingStore, image: Descriptor, change: dict[str, Any]
) -> None:
    text = json.dumps(statement(image.digest, **change)).replace("DIGEST", image.digest.hex)
    attach(store, image, bundle(KEY, json.loads(text)))
    refused(store, image)


def test_sg_07_a_signature_whose_content_is_missing_fails(store: RecordingStore, image: Descriptor) -> None:
    kept = keep(store, image, signed(image))
    manifest = json.loads(store._content[kept.digest])
    store.delete(Descriptor.from_json(manifest["layers"][0], "layer"))
    refused(store, image, note="is not in memory")


def test_sg_07_signatures_that_are_damaged_fail() -> None:
    store = FlakyStore()
    image = put_image(store)
    store.plan(keep(store, image, signed(image)), lies(b"other bytes"))
    with pytest.raises(IntegrityError, match="is not signed by"):
        accepted(store, image)
    accepted(store, image)


def test_sg_07_a_source_without_a_list_of_referrers_has_what_is_under_the_tag(
    store: RecordingStore, image: Descriptor
) -> None:
    attach(store, image, bundle(KEY, statement(image.digest)))
    source = Listless(store)
    with pytest.raises(IntegrityError, match="is not signed by"):
        verify(source, image, Policy((KEY.public,)))
    keep(store, image, signed(image))
    verify(source, image, Policy((KEY.public,)))


def test_sg_07_something_else_with_the_tag_of_signatures_fails(
    store: RecordingStore, image: Descriptor
) -> None:
    store.tag(put_index(store, [image]), simplesigning.tag_of(image.digest))
    refused(store, image)
