"""What `docker save` writes, read as a layout: the manifests that it lacks are made up, the rest stays.

The archive holds `manifest.json`, one configuration per image and layers as plain tar files, whose digests
are the configuration's diff IDs.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits, mediatypes, strictjson
from ocitool.compression import Compression, detect
from ocitool.digest import Digest, new_hasher
from ocitool.errors import IntegrityError, InvalidContent, InvalidReference
from ocitool.layout.index import IMAGE_NAME, REF_NAME, IndexJson
from ocitool.model import Descriptor, ImageConfig
from ocitool.reference import Reference
from ocitool.streams import chunks

if TYPE_CHECKING:
    from typing import TypeAlias

    from ocitool.layout.tarfiles import TarFile

    # Bytes in memory, or the name of a file in the archive.
    Contents: TypeAlias = dict[Digest, bytes | str]

MANIFEST_JSON: Final = "manifest.json"
_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([a-f0-9]+)")
_ID: Final = re.compile(r"[a-f0-9]{64}")
_LAYERS: Final = {
    Compression.NONE: mediatypes.OCI_LAYER,
    Compression.GZIP: mediatypes.OCI_LAYER_GZIP,
    Compression.ZSTD: mediatypes.OCI_LAYER_ZSTD,
}


def read(tar: TarFile, what: str) -> tuple[IndexJson, Contents]:
    """Read an archive's images as roots and content.

    Raises:
        NotFound: there is no `manifest.json`.
        InvalidContent: it, or what it names, is not what it should be.
    """
    images = strictjson.loads(tar.read(MANIFEST_JSON, limits.MANIFEST_BYTES), f"{MANIFEST_JSON} of {what}")
    if not isinstance(images, list) or not images:
        raise InvalidContent(f"{MANIFEST_JSON} of {what} is not a list of images")
    contents: Contents = {}
    entries = [
        entry
        for i, image in enumerate(images)
        for entry in _image(tar, image, contents, f"image {i} of {what}")
    ]
    fields = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    return IndexJson(strictjson.dumps(fields)), contents


def full_name(ref: str) -> str:
    """`debian:12` as `docker.io/library/debian:12`, so that both forms find an image."""
    try:
        return Reference.parse(ref).tagged if ref and not ref.startswith("sha256:") else ref
    except InvalidReference:
        return ref


def _image(tar: TarFile, image: Any, contents: Contents, what: str) -> list[dict[str, Any]]:
    config_name, layer_names, tags = _fields(image, what)
    raw = tar.read(config_name, limits.CONFIG_BYTES)
    config = Descriptor.of(mediatypes.OCI_CONFIG, raw)
    _check_id(config_name, config, what)
    contents[config.digest] = raw
    diff_ids = ImageConfig.parse(raw, f"configuration of {what}").diff_ids
    if len(diff_ids) != len(layer_names):
        raise InvalidContent(f"{what} has {len(layer_names)} layers, its configuration {len(diff_ids)}")
    layers = [_layer(tar, name, diff_id) for name, diff_id in zip(layer_names, diff_ids, strict=True)]
    contents.update({desc.digest: name for desc, name in zip(layers, layer_names, strict=True)})
    fields = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    manifest = strictjson.dumps(fields)
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, manifest)
    contents[desc.digest] = manifest
    names = [Reference.parse(tag).tagged for tag in tags]
    annotations = [{"annotations": {REF_NAME: name, IMAGE_NAME: name}} for name in names]
    return [desc.to_json() | more for more in annotations or [{}]]


def _fields(image: Any, what: str) -> tuple[str, list[str], list[str]]:
    if not isinstance(image, dict):
        raise InvalidContent(f"{what} is not an object")
    config, layers, tags = image.get("Config"), image.get("Layers"), image.get("RepoTags") or []
    lists_of_strings = all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in (layers, tags)
    )
    if not isinstance(config, str) or not lists_of_strings:
        raise InvalidContent(f"{what} lacks Config or Layers, or they are of a wrong type")
    return config, list(layers or []), tags


def _check_id(name: str, config: Descriptor, what: str) -> None:
    """An image's ID is the digest of its configuration, and the file is named by it."""
    stem = posixpath.basename(name).removesuffix(".json")
    if _ID.fullmatch(stem) and stem != config.digest.hex:
        raise IntegrityError(
            f"the configuration of {what} is not the one that its name says",
            expected=f"sha256:{stem}",
            actual=str(config.digest),
        )


def _layer(tar: TarFile, name: str, diff_id: Digest) -> Descriptor:
    """A layer as it lies there. What its name or its diff ID says is verified by whoever reads it."""
    size = tar.member(name).size
    kind = detect(tar.open(name).read(4))
    blob = _BLOB.fullmatch(name)
    if blob:
        return Descriptor(_LAYERS[kind], Digest(blob[1], blob[2]), size)
    if kind is Compression.NONE:
        return Descriptor(_LAYERS[kind], diff_id, size)
    hasher = new_hasher("sha256")
    for chunk in chunks(tar.open(name)):
        hasher.update(chunk)
    return Descriptor(_LAYERS[kind], Digest("sha256", hasher.hexdigest()), size)
