"""Signing images as cosign does with a key, so that either tool verifies what the other has signed."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ocitool import jsontypes, limits, mediatypes, strictjson
from ocitool.content import read_manifest, read_verified
from ocitool.digesttags import beside
from ocitool.errors import Conflict, InvalidContent, NotFound, UnsafeContent
from ocitool.model import Descriptor, Manifest
from ocitool.trust import simplesigning
from ocitool.trust.attaching import put

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ocitool.content import Source, Store
    from ocitool.trust.keys import PrivateKey


def sign(
    store: Store,
    root: Descriptor,
    key: PrivateKey,
    *,
    identity: str,
    name: str = "",
    annotations: Mapping[str, str] = jsontypes.NOTHING,
    recursive: bool = False,
) -> list[Descriptor]:
    """Sign an image; signatures that are there stay, and one that would say the same is not made again.

    Two who sign one image at the same moment may undo one another, for registries have no way to prevent it.

    Args:
        store: where the image is, and where its signatures go.
        root: the image, or an index.
        key: the signer's.
        identity: what the signature calls the image: a registry's repository, as other tools want it.
        name: its name in `store`, where that is a layout whose names say the repository.
        annotations: what else the signature says.
        recursive: sign every manifest below an index too, for those who pull one by its own digest.

    Returns:
        What has been signed now.

    Raises:
        Conflict: something else has the tag of the signatures, or there are as many as anyone looks at.
        OciError: whatever the store raises.
    """
    signed = []
    for desc in _below(store, root) if recursive else (root,):
        document = simplesigning.document_of(desc.digest, identity, annotations)
        if _add(store, desc, key, document, beside(name, simplesigning.tag_of(desc.digest))):
            signed.append(desc)
    return signed


def _below(source: Source, root: Descriptor) -> Iterator[Descriptor]:
    """A root, and every manifest that its indexes list."""
    seen: dict[Descriptor, None] = {root: None}
    rank = [root]
    for _ in range(limits.INDEX_NESTING):
        indexes = [read_manifest(source, desc) for desc in rank if desc.is_index]
        found = [child for index in indexes for child in index.children if child.is_manifest]
        rank = [child for child in dict.fromkeys(found) if child not in seen]
        seen |= dict.fromkeys(rank)
    if any(desc.is_index for desc in rank):
        raise UnsafeContent(f"{root.digest} is nested deeper than {limits.INDEX_NESTING} levels")
    yield from seen


def _add(store: Store, desc: Descriptor, key: PrivateKey, document: bytes, tag: str) -> bool:
    """Put a signature under the tag of a manifest's signatures; False where it is there."""
    fields, layers = _there(store, tag)
    layer = Descriptor.of(simplesigning.MEDIA_TYPE, document)
    if any(_is_by(key, candidate, document) for candidate in layers if candidate == layer):
        return False
    if len(layers) >= limits.SIGNATURES:
        raise Conflict(f"{desc.digest} has {len(layers)} signatures, and nobody looks at more")
    signature = base64.b64encode(key.sign(document)).decode()
    layer = replace(put(store, layer.media_type, document), annotations={simplesigning.SIGNATURE: signature})
    raw = strictjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            **fields,
            "config": put(store, mediatypes.OCI_CONFIG, _config((*layers, layer))).to_json(),
            "layers": [*fields.get("layers", ()), layer.to_json()],
        }
    )
    store.tag(put(store, mediatypes.OCI_MANIFEST, raw), tag)
    return True


def _there(store: Store, tag: str) -> tuple[dict[str, Any], tuple[Descriptor, ...]]:
    """The manifest of the signatures that are there, as it stands, and its layers."""
    try:
        desc = store.resolve(tag)
    except NotFound:
        return {}, ()
    raw = read_verified(store, desc)
    if desc.media_type != mediatypes.OCI_MANIFEST:
        raise Conflict(f"the tag {tag} is that of signatures, but names something else ({desc.digest})")
    return strictjson.load_object(raw, tag), Manifest.parse(raw, desc.media_type, tag).layers


def _is_by(key: PrivateKey, layer: Descriptor, document: bytes) -> bool:
    try:
        candidate = simplesigning.candidate_of(layer, document)
    except InvalidContent:
        return False
    return key.public.verifies(candidate.signature, document)


def _config(layers: tuple[Descriptor, ...]) -> bytes:
    """A configuration as other tools expect it of whatever is no artifact: it lists the layers."""
    diff_ids = [str(layer.digest) for layer in layers]
    return strictjson.dumps(
        {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    )
