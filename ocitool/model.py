"""The documents of an image: descriptors, manifests, indexes and configurations (image-spec 1.1.1).

Parsed documents are views. The raw bytes are what is hashed, stored and pushed: no document is ever
written again from its parsed form, so fields that ocitool does not know survive.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ocitool import jsontypes, limits, mediatypes, strictjson
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, InvalidDigest, UnsafeContent
from ocitool.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_SIZE: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What content is and how to know it (image-spec, descriptor.md).

    Two descriptors are equal if they name the same content; what else they say about it (platform,
    annotations) takes no part in that.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = field(default=None, compare=False)
    annotations: Mapping[str, str] = field(default_factory=lambda: jsontypes.NOTHING, compare=False)
    artifact_type: str = field(default="", compare=False)
    urls: tuple[str, ...] = field(default=(), compare=False)
    data: bytes | None = field(default=None, compare=False)

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """The descriptor of bytes in memory."""
        return cls(media_type, Digest.of(content), len(content))

    @classmethod
    def from_json(cls, value: Any, what: str) -> Descriptor:
        """Read a descriptor from parsed JSON.

        Args:
            value: what stands where a descriptor should.
            what: how to call that place in an error ("layers[2] of manifest sha256:…").

        Raises:
            InvalidContent: it is not a descriptor.
            IntegrityError: its embedded data is not that of its digest and size.
            Unsupported: its digest's algorithm is not registered.
        """
        fields = jsontypes.mapping(value, what)
        _check_spelling(fields, _DESCRIPTOR_KEYS, what)
        # descriptor.md: "This REQUIRED property contains the media type of the referenced content."
        media_type = jsontypes.string(fields, "mediaType", what)
        if not mediatypes.is_media_type(media_type):
            raise InvalidContent(f"{what} has the media type {media_type!r:.60}, which is none")
        # descriptor.md: "This REQUIRED property is the _digest_ of the targeted content, conforming to the
        # requirements outlined in [Digests](#digests)."
        digest = _digest(jsontypes.string(fields, "digest", what), what)
        # descriptor.md: "This REQUIRED property specifies the size, in bytes, of the raw content."
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
            raise InvalidContent(f"{what} has the size {size!r:.60}, which is not a number of bytes")
        return cls(
            media_type,
            digest,
            size,
            platform=_entry_platform(fields.get("platform"), f"platform of {what}"),
            annotations=jsontypes.string_map(fields, "annotations", what),
            artifact_type=jsontypes.string(fields, "artifactType", what, default=""),
            urls=jsontypes.strings(fields, "urls", what),
            data=_embedded(fields, digest, size, what),
        )

    def to_json(self) -> dict[str, Any]:
        """The descriptor as JSON, for documents that ocitool itself writes."""
        result: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            result["urls"] = list(self.urls)
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        if self.data is not None:
            result["data"] = base64.b64encode(self.data).decode()
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        if self.platform:
            result["platform"] = _platform_json(self.platform)
        return result

    @property
    def is_manifest(self) -> bool:
        """Whether the content names other content and lives among a registry's manifests."""
        return self.media_type in mediatypes.MANIFESTS

    @property
    def is_index(self) -> bool:
        """Whether the content is a list of manifests."""
        return self.media_type in mediatypes.INDEXES

    def __str__(self) -> str:
        return str(self.digest)


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image or an artifact: a configuration and layers (image-spec, manifest.md)."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes, media_type: str, what: str = "manifest") -> Manifest:
        """Read a manifest.

        Args:
            raw: the document's bytes.
            media_type: what its descriptor, or the registry, says it is.
            what: how to call it in an error.

        Raises:
            InvalidContent: it is not a manifest, or says that it is something else.
            IntegrityError, Unsupported: as `Descriptor.from_json`.
        """
        fields = _document(raw, media_type, what, foreign=("manifests",))
        layers = jsontypes.items(fields, "layers", what)
        config = Descriptor.from_json(fields.get("config"), f"config of {what}")
        subject = fields.get("subject")
        return cls(
            raw=raw,
            media_type=media_type,
            config=config,
            layers=tuple(
                Descriptor.from_json(item, f"layers[{i}] of {what}") for i, item in enumerate(layers)
            ),
            subject=None if subject is None else Descriptor.from_json(subject, f"subject of {what}"),
            artifact_type=jsontypes.string(fields, "artifactType", what, default=""),
            annotations=jsontypes.string_map(fields, "annotations", what),
        )

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What the manifest is made of."""
        return (self.config, *self.layers)

    @property
    def kind(self) -> str:
        """What a list of referrers calls this manifest.

        distribution-spec, "Listing Referrers": "If the `artifactType` is empty or missing in the image
        manifest, the value of `artifactType` MUST be set to the config descriptor `mediaType` value."
        """
        return self.artifact_type or self.config.media_type


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, most often one per platform (image-spec, image-index.md)."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes, media_type: str, what: str = "index") -> Index:
        """Read an index.

        Raises:
            InvalidContent: it is not an index, or says that it is something else.
            UnsafeContent: it has more entries than anyone needs.
            IntegrityError, Unsupported: as `Descriptor.from_json`.
        """
        fields = _document(raw, media_type, what, foreign=("layers", "config"))
        # image-index.md, manifests: "While this property MUST be present, the size of the array MAY be zero."
        manifests = jsontypes.items(fields, "manifests", what)
        if len(manifests) > limits.INDEX_ENTRIES:
            raise UnsafeContent(
                f"{what} has {len(manifests)} entries; at most {limits.INDEX_ENTRIES} are read"
            )
        subject = fields.get("subject")
        return cls(
            raw=raw,
            media_type=media_type,
            manifests=tuple(
                Descriptor.from_json(item, f"manifests[{i}] of {what}") for i, item in enumerate(manifests)
            ),
            subject=None if subject is None else Descriptor.from_json(subject, f"subject of {what}"),
            artifact_type=jsontypes.string(fields, "artifactType", what, default=""),
            annotations=jsontypes.string_map(fields, "annotations", what),
        )

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """What the index lists."""
        return self.manifests

    @property
    def kind(self) -> str:
        """What a list of referrers calls this index."""
        return self.artifact_type


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How an image's layers make a root filesystem and how to run it (image-spec, config.md).

    `config` is the execution part as parsed JSON with types checked: the keys are the specification's
    (`Env`, `Entrypoint`, …), a missing one is absent.
    """

    raw: bytes
    platform: Platform
    diff_ids: tuple[Digest, ...]
    config: Mapping[str, Any]
    fields: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes, what: str = "image config") -> ImageConfig:
        """Read an image's configuration.

        Raises:
            InvalidContent: it is not one.
            Unsupported: the algorithm of a diff ID is not registered.
        """
        fields = strictjson.load_object(raw, what)
        rootfs = jsontypes.mapping(fields.get("rootfs"), f"rootfs of {what}")
        # config.md, rootfs, type: "MUST be set to `layers`. Implementations MUST generate an error if they
        # encounter a unknown value while verifying or unpacking an image."
        if rootfs.get("type") != "layers":
            raise InvalidContent(f"rootfs of {what} has the type {rootfs.get('type')!r:.60}, not layers")
        diff_ids = jsontypes.strings(
            rootfs, "diff_ids", what
        )  # builders leave it out of an image without layers
        execution = fields.get("config")
        return cls(
            raw=raw,
            platform=_platform(fields, what),
            diff_ids=tuple(
                _digest(diff_id, f"diff_ids[{i}] of {what}") for i, diff_id in enumerate(diff_ids)
            ),
            # config.md, config: "This field can be `null`, in which case any execution parameters should be
            # specified at creation of the container."
            config=_execution({} if execution is None else execution, what),
            fields=fields,
        )


def parse_manifest(raw: bytes, desc: Descriptor) -> Manifest | Index:
    """Read the content of a manifest's descriptor as what the descriptor says it is.

    Raises:
        InvalidContent: the content is something else.
    """
    what = f"{'index' if desc.is_index else 'manifest'} {desc.digest}"
    return (Index if desc.is_index else Manifest).parse(raw, desc.media_type, what)


def sniff_media_type(raw: bytes, what: str) -> str:
    """The media type of a manifest that came without one, by what it says and holds.

    Raises:
        InvalidContent: it could be an image and an index, or neither.
    """
    fields = strictjson.load_object(raw, what)
    declared = jsontypes.string(fields, "mediaType", what, default="")
    if declared:
        return declared
    has_layers, has_manifests = "layers" in fields, "manifests" in fields
    if has_layers == has_manifests:
        raise InvalidContent(f"{what} has no media type, and could be an image or an index or neither")
    return mediatypes.OCI_INDEX if has_manifests else mediatypes.OCI_MANIFEST


_DESCRIPTOR_KEYS: Final = {
    name.casefold(): name
    for name in ("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")
}
_DOCUMENT_KEYS: Final = {
    name.casefold(): name
    for name in (
        *("schemaVersion", "mediaType", "artifactType", "config", "layers"),
        *("manifests", "subject", "annotations"),
    )
}


def _document(raw: bytes, media_type: str, what: str, foreign: tuple[str, ...]) -> dict[str, Any]:
    """A manifest or an index; `foreign` are the keys that only the other of the two has."""
    fields = strictjson.load_object(raw, what)
    _check_spelling(fields, _DOCUMENT_KEYS, what)
    # manifest.md and image-index.md, schemaVersion: "For this version of the specification, this MUST be `2`
    # to ensure backward compatibility with older versions of Docker."
    version = fields.get("schemaVersion")
    if version != 2 or not isinstance(version, int):
        raise InvalidContent(f"{what} has schemaVersion {version!r:.60}, not 2")
    # distribution-spec, "Pulling manifests": "If the manifest has a `mediaType` field, clients SHOULD reject
    # unless the `mediaType` field's value matches the type specified by the `Content-Type` header."
    declared = jsontypes.string(fields, "mediaType", what, default=media_type)
    if declared != media_type:
        raise InvalidContent(
            f"{what} says that it is {declared!r:.100}, but was announced as {media_type!r:.100}"
        )
    # A document with both lists is an image to one client and an index to another (CVE-2021-41190).
    for key in foreign:
        if key in fields:
            raise InvalidContent(f"{what} holds {key}, so it could be an image or an index")
    return fields


def _check_spelling(fields: Mapping[str, Any], known: Mapping[str, str], what: str) -> None:
    """Refuse `Layers` beside, or instead of, `layers`: many parsers take one for the other."""
    for key in fields:
        if known.get(key.casefold(), key) != key:
            raise InvalidContent(f"{what} has the key {key!r:.60}, which only some parsers would read")


def _digest(text: str, what: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidContent(f"{what}: {error.message}") from error


def _embedded(fields: Mapping[str, Any], digest: Digest, size: int, what: str) -> bytes | None:
    encoded = fields.get("data")
    if encoded is None:
        return None
    if not isinstance(encoded, str):
        raise InvalidContent(f"data of {what} is not a string")
    # descriptor.md, data: "Values MUST conform to the Base 64 encoding, as defined in
    # [RFC 4648][rfc4648-s4]."
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise InvalidContent(f"data of {what} is not base64: {error}") from error
    # descriptor.md, data: "The decoded data MUST be identical to the referenced content and SHOULD be
    # verified against the [`digest`](#digests) and `size` fields by content consumers."
    if len(data) != size or Digest.of(data, digest.algorithm) != digest:
        raise IntegrityError(
            f"data of {what} is not the content that the descriptor names", expected=str(digest)
        )
    return data


def _entry_platform(value: Any, what: str) -> Platform | None:
    """The platform of a descriptor; one that names neither a system nor a processor says nothing."""
    if value is None:
        return None
    platform = _platform(value, what)
    return platform if platform.os or platform.architecture else None


def _platform(value: Any, what: str) -> Platform:
    fields = jsontypes.mapping(value, what)
    return Platform(
        jsontypes.string(fields, "os", what, default=""),
        jsontypes.string(fields, "architecture", what, default=""),
        jsontypes.string(fields, "variant", what, default=""),
        jsontypes.string(fields, "os.version", what, default=""),
        jsontypes.strings(fields, "os.features", what),
    )


def _platform_json(platform: Platform) -> dict[str, Any]:
    result: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        result["os.version"] = platform.os_version
    if platform.os_features:
        result["os.features"] = list(platform.os_features)
    if platform.variant:
        result["variant"] = platform.variant
    return result


_EXECUTION_STRINGS: Final = ("User", "WorkingDir", "StopSignal")
_EXECUTION_LISTS: Final = ("Env", "Entrypoint", "Cmd")
_EXECUTION_SETS: Final = ("ExposedPorts", "Volumes")


def _execution(value: Any, what: str) -> Mapping[str, Any]:
    """Check the types of what the runner will use, and leave out what is null."""
    config = jsontypes.mapping(value, f"config of {what}")
    # config.md: "Note: Any OPTIONAL field MAY also be set to null, which is equivalent to being absent."
    result = {key: item for key, item in config.items() if item is not None}
    for key in _EXECUTION_STRINGS:
        jsontypes.string(result, key, f"config of {what}", default="")
    for key in _EXECUTION_LISTS:
        jsontypes.strings(result, key, f"config of {what}")
    for key in _EXECUTION_SETS:
        jsontypes.mapping(result.get(key, {}), f"config.{key} of {what}")
    jsontypes.string_map(result, "Labels", f"config of {what}")
    return MappingProxyType(result)
