"""What is signed and is no signature of an image fails, and never otherwise than with an error of ours."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from property.strategies import json_values, spoiled
from support.stores import put_image
from support.trust_keys import attach, bundle, keep, made, payload, statement

from ocitool.digest import Digest
from ocitool.errors import IntegrityError
from ocitool.memory import MemoryStore
from ocitool.trust import Policy, verify

KEY = made(kind="ed25519")
IMAGE = put_image(MemoryStore())


def _accepted(store: MemoryStore) -> bool:
    try:
        verify(store, IMAGE, Policy((KEY.public,)))
    except IntegrityError:
        return False
    return True


def _critical(document: bytes) -> Any:
    """What a document says, as far as it counts."""
    fields = json.loads(document)
    return fields["critical"]["image"], fields["critical"]["type"]


@given(spoiled(st.just(json.loads(payload(IMAGE.digest)))) | json_values)
def test_a_signed_document_passes_only_if_it_names_the_image(document: Any) -> None:
    store = MemoryStore()
    raw = json.dumps(document).encode()
    keep(store, IMAGE, (raw, KEY.sign(raw)))
    if _accepted(store):
        assert _critical(raw) == _critical(payload(IMAGE.digest))


@given(spoiled(st.just(statement(IMAGE.digest))) | json_values)
def test_a_signed_statement_passes_only_if_it_names_the_image(document: Any) -> None:
    store = MemoryStore()
    attach(store, IMAGE, bundle(KEY, document))
    if _accepted(store):
        assert document["predicateType"] == "https://sigstore.dev/cosign/sign/v1"
        assert [subject["digest"]["sha256"] for subject in document["subject"]] == [IMAGE.digest.hex]


@given(spoiled(st.just(bundle(KEY, statement(Digest.of(b"another image"))))) | json_values)
def test_a_bundle_that_is_of_another_image_never_passes(document: Any) -> None:
    store = MemoryStore()
    attach(store, IMAGE, document)
    assert not _accepted(store)


@given(st.binary(max_size=200), st.binary(max_size=80) | st.text(max_size=80))
def test_garbage_is_no_signature(document: bytes, signature: bytes | str) -> None:
    store = MemoryStore()
    keep(store, IMAGE, (document, signature))
    assert not _accepted(store)
