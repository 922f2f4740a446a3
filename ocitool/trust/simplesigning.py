"""cosign's signatures: a small document under the tag `sha256-….sig`, with its signature in an annotation.

The format is that of cosign's SIGNATURE_SPEC.md, "Simple Signing". Every layer of the manifest with that tag
is one signature. Certificates and entries of transparency logs may stand beside it, and are left as they are.
"""

from __future__ import annotations

import base64
import binascii
from functools import partial
from typing import TYPE_CHECKING, Final

from ocitool import strictjson
from ocitool.errors import InvalidContent
from ocitool.trust.claims import Candidate, Claims, mapping, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocitool.digest import Digest
    from ocitool.model import Descriptor

MEDIA_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT_TYPE: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
"""The same as a referrer, which cosign writes where it is told to."""
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_TYPE: Final = "cosign container image signature"


def tag_of(digest: Digest) -> str:
    """The tag of a manifest's signatures."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def document_of(digest: Digest, identity: str, annotations: Mapping[str, str]) -> bytes:
    """What is signed: the same bytes each time."""
    critical = {
        "identity": {"docker-reference": identity},
        "image": {"docker-manifest-digest": str(digest)},
        "type": _TYPE,
    }
    return strictjson.dumps({"critical": critical, "optional": dict(sorted(annotations.items())) or None})


def candidate_of(layer: Descriptor, document: bytes) -> Candidate:
    """One of the signatures in a manifest.

    Raises:
        InvalidContent: the layer's annotation is no signature.
    """
    try:
        signature = base64.b64decode(layer.annotations.get(SIGNATURE, ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidContent(f"the signature of {layer.digest} is not base64") from error
    return Candidate(MEDIA_TYPE, signature, document, partial(_claims, document, f"payload {layer.digest}"))


def _claims(document: bytes, what: str) -> Claims:
    fields = strictjson.load_object(document, what)
    kind = text(fields, "critical", "type", what=what)
    if kind != _TYPE:
        raise InvalidContent(f"{what} is {kind!r:.60}, not the signature of an image")
    return Claims(
        frozenset({text(fields, "critical", "image", "docker-manifest-digest", what=what)}),
        text(fields, "critical", "identity", "docker-reference", what=what),
        mapping(fields.get("optional"), f"optional of {what}"),
    )
