"""Signatures in a sigstore bundle (version 0.3), which newer versions of cosign attach as referrers.

A bundle holds a DSSE envelope, and that an in-toto statement whose subject is the image. Read are those that
a key has signed; of certificates and of transparency logs nothing is believed, and nothing is looked at.
"""

from __future__ import annotations

import base64
import binascii
from functools import partial
from typing import Any, Final

from ocitool import jsontypes, strictjson
from ocitool.errors import InvalidContent
from ocitool.trust.claims import Candidate, Claims, mapping

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
"""What makes a statement the signature of an image; an SBOM or a scan's report is none (CVE-2022-35929)."""


def candidate_of(bundle: bytes, what: str) -> Candidate:
    """The signature in a bundle.

    Raises:
        InvalidContent: it is no bundle that a key has signed.
    """
    fields = strictjson.load_object(bundle, what)
    if fields.get("mediaType") != MEDIA_TYPE:
        raise InvalidContent(f"{what} has the mediaType {fields.get('mediaType')!r:.100}, not {MEDIA_TYPE}")
    material = jsontypes.mapping(fields.get("verificationMaterial"), f"verificationMaterial of {what}")
    if "publicKey" not in material:
        raise InvalidContent(f"{what} is by a certificate, and only keys are checked")
    envelope = jsontypes.mapping(fields.get("dsseEnvelope"), f"dsseEnvelope of {what}")
    kind = jsontypes.string(envelope, "payloadType", what)
    if kind != _PAYLOAD_TYPE:
        raise InvalidContent(f"{what} holds {kind!r:.100}, not a statement")
    signatures = jsontypes.items(envelope, "signatures", what)
    # sigstore_bundle.proto, dsse_envelope: "DSSE envelopes in a bundle MUST have exactly one signature."
    if len(signatures) != 1:
        raise InvalidContent(f"{what} has {len(signatures)} signatures, not one")
    statement = _decoded(envelope.get("payload"), f"payload of {what}")
    signature = _decoded(jsontypes.mapping(signatures[0], f"signature of {what}").get("sig"), what)
    return Candidate(MEDIA_TYPE, signature, encoded(kind, statement), partial(_claims, statement, what))


def encoded(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's "pre-authentication encoding"."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _decoded(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidContent(f"{what} is not a string")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidContent(f"{what} is not base64") from error


def _claims(statement: bytes, what: str) -> Claims:
    what = f"statement of {what}"
    fields = strictjson.load_object(statement, what)
    kind, predicate = (jsontypes.string(fields, key, what) for key in ("_type", "predicateType"))
    if kind != _STATEMENT or predicate != _PREDICATE:
        raise InvalidContent(f"{what} is {predicate!r:.100}, not the signature of an image")
    subjects = [
        jsontypes.mapping(item, f"subject of {what}") for item in jsontypes.items(fields, "subject", what)
    ]
    # With one subject it is plain what the annotations are of.
    if len(subjects) != 1:
        raise InvalidContent(f"{what} has {len(subjects)} subjects, not one")
    digests = jsontypes.string_map(subjects[0], "digest", what)
    return Claims(
        frozenset(f"{algorithm}:{value}" for algorithm, value in digests.items()),
        "",
        mapping(subjects[0].get("annotations"), f"annotations of {what}"),
    )
