"""Media types that ocitool knows (image-spec, media-types.md), and Docker's twins of them.

Content of any other type is copied as it is.
"""

from __future__ import annotations

import re
from typing import Final

# descriptor.md, mediaType: "Values MUST comply with [RFC 6838][rfc6838], including the [naming requirements
# in its section 4.2][rfc6838-s4.2]." Artifacts in the wild carry parameters too ("text/plain; charset=x"),
# and nothing is gained by refusing to copy those; what could not stand in a header is refused.
_MEDIA_TYPE: Final = re.compile(r"[!-.0-~]{1,127}/[!-~][ -~]{0,254}")

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD: Final = OCI_LAYER + "+zstd"
OCI_LAYER_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD: Final = DOCKER_LAYER + ".zstd"
DOCKER_LAYER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"

DOCKER_SCHEMA1: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
IMAGE_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS: Final = INDEXES | IMAGE_MANIFESTS
"""The types whose content names other content, and which registries keep under /manifests/."""

CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})


def is_media_type(text: str) -> bool:
    """Whether something can be a media type at all."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def is_nondistributable(media_type: str) -> bool:
    """Whether this is a layer that its maker forbids to distribute (image-spec, layer.md)."""
    return media_type.startswith((OCI_LAYER_NONDISTRIBUTABLE, DOCKER_LAYER_FOREIGN))


def is_layer(media_type: str) -> bool:
    """Whether this is a tar layer, compressed in whichever way."""
    return media_type.startswith((OCI_LAYER, DOCKER_LAYER)) or is_nondistributable(media_type)
