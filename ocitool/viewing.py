"""What an image is, as plain data for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocitool import mediatypes
from ocitool.content import read_config, read_manifest
from ocitool.model import Index, Manifest

if TYPE_CHECKING:
    from ocitool.content import Source
    from ocitool.model import Descriptor


def view(source: Source, desc: Descriptor) -> dict[str, Any]:
    """Describe an image, an index or an artifact.

    The keys are the specification's where it has a name for the thing.

    Raises:
        OciError: a manifest or configuration can't be read.
    """
    manifest = read_manifest(source, desc)
    if isinstance(manifest, Index):
        return {**_head(desc, manifest), "manifests": [_entry(entry) for entry in manifest.manifests]}
    return {**_head(desc, manifest), **_image(source, manifest)}


def _head(desc: Descriptor, manifest: Manifest | Index) -> dict[str, Any]:
    return {
        "digest": str(desc.digest),
        "mediaType": desc.media_type,
        "artifactType": manifest.artifact_type,
        "subject": str(manifest.subject.digest) if manifest.subject else "",
        "annotations": dict(manifest.annotations),
    }


def _entry(desc: Descriptor) -> dict[str, Any]:
    platform = str(desc.platform) if desc.platform and not desc.platform.is_unknown else ""
    return {"platform": platform, **desc.to_json()} | {"platform": platform}


def _image(source: Source, manifest: Manifest) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if manifest.config.media_type in mediatypes.CONFIGS:
        config = read_config(source, manifest)
        described = {
            "platform": str(config.platform),
            "created": config.fields.get("created") or "",
            "config": dict(config.config),
        }
    layers = [
        {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}
        for layer in manifest.layers
    ]
    return {**described, "size": sum(layer.size for layer in manifest.layers), "layers": layers}
