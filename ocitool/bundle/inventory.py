"""The inventory: what a bundle, or a place on the far side, holds (docs/reference/bundle-format.md).

The same document serves both: a bundle carries one, and `bundle inventory` writes one for a registry or a
layout, so that the next bundle can leave out what is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits, strictjson
from ocitool.errors import Conflict, InvalidContent, InvalidReference, UnsafeContent, Unsupported
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.reference import check_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.digest import Digest

MEDIA_TYPE: Final = "application/vnd.ocitool.inventory.v1+json"
VERSION: Final = 1
MAX_BYTES: Final = limits.INDEX_JSON_BYTES
"""How large the document may be; about 300,000 pieces of content."""
# As layouts have it: what could mislead a terminal, or who reads lines, is no part of a name.
_NAME: Final = re.compile(r"[!-~]{0,512}")


@dataclass(frozen=True, slots=True)
class Image:
    """A root: an image, an index or an artifact, and what it is called.

    Attributes:
        repository: the repository's full name, or "" where a layout's name is no more than a tag.
        tag: its tag, or "" for what is kept without a name (referrers are).
        root: its descriptor, without annotations.
        platforms: those of the index's platforms that are held, where not all are; the index is sparse then.
    """

    repository: str
    tag: str
    root: Descriptor
    platforms: tuple[Platform, ...] = ()

    @property
    def name(self) -> str:
        """Repository and tag, as a layout calls it; "" for what has no name."""
        return f"{self.repository}:{self.tag}" if self.repository and self.tag else self.tag

    def __str__(self) -> str:
        return self.name or f"{self.repository}@{self.root.digest}"


def split(name: str) -> tuple[str, str]:
    """A layout's name as repository and tag; one without a tag's form is all tag.

    Raises:
        InvalidReference: no layout can have such a name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidReference(f"content can't be named {name!r:.80} in a bundle")
    repository, _, tag = name.rpartition(":")
    try:
        check_tag(tag)
    except InvalidReference:
        return "", name
    return repository, tag


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece of content.

    Attributes:
        descriptor: its media type, digest and size.
        repositories: those in which an image needs it.
        holders: for presumed content, the repositories of the far side that were seen to have it.
    """

    descriptor: Descriptor
    repositories: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is held, under which names, and what has to be there already.

    Attributes:
        images: every root, by name; those without a name follow.
        content: what is held, manifests first.
        presumed: what the images need besides, and the far side is said to have.
    """

    images: tuple[Image, ...] = ()
    content: Mapping[Digest, Entry] = field(default_factory=dict)
    presumed: Mapping[Digest, Entry] = field(default_factory=dict)

    @classmethod
    def of(
        cls, images: Iterable[Image], content: Iterable[Entry], presumed: Iterable[Entry] = ()
    ) -> Inventory:
        """An inventory in its one order.

        Raises:
            Conflict: one name stands for two images.
        """
        images = sorted(dict.fromkeys(images), key=_rank)
        _check_names(images)
        return cls(tuple(images), _ordered(content), _ordered(presumed))

    @classmethod
    def union(cls, inventories: Iterable[Inventory]) -> Inventory:
        """What several places, or bundles that went to one, hold and presume together; names are left out."""
        content: dict[Digest, Entry] = {}
        for one in inventories:
            for digest, entry in (*one.content.items(), *one.presumed.items()):
                known = content.get(digest, Entry(entry.descriptor))
                where = {*known.repositories, *entry.repositories}
                content[digest] = Entry(entry.descriptor, tuple(sorted(where)))
        return cls.of((), content.values())

    @classmethod
    def parse(cls, raw: bytes, what: str) -> Inventory:
        """Read the document.

        Args:
            raw: its bytes.
            what: how to call it in an error.

        Raises:
            InvalidContent: it is no inventory.
            UnsafeContent: it is larger than `MAX_BYTES`.
            Unsupported: it is one of a version to come.
        """
        if len(raw) > MAX_BYTES:
            raise UnsafeContent(f"{what} is larger than {MAX_BYTES} bytes")
        fields = strictjson.load_object(raw, what)
        if fields.get("mediaType") != MEDIA_TYPE:
            raise InvalidContent(f"{what} is no inventory of images")
        if fields.get("schemaVersion") != VERSION:
            raise Unsupported(
                f"{what} has the version {fields.get('schemaVersion')!r:.40}; only {VERSION} is supported",
                hint="a later ocitool wrote it",
            )
        images = [
            _image(item, f"images[{i}] of {what}") for i, item in enumerate(_list(fields, "images", what))
        ]
        try:
            _check_names(images)
        except Conflict as error:
            raise InvalidContent(f"{what}: {error.message}") from error
        return cls(tuple(images), _entries(fields, "content", what), _entries(fields, "presumed", what))

    def dump(self) -> bytes:
        """The document's bytes, the same for the same content every time.

        Raises:
            UnsafeContent: it would be too large to be read again.
        """
        document: dict[str, Any] = {
            "schemaVersion": VERSION,
            "mediaType": MEDIA_TYPE,
            "images": [_image_json(image) for image in self.images],
            "content": [_entry_json(entry) for entry in self.content.values()],
        }
        if self.presumed:
            document["presumed"] = [_entry_json(entry) for entry in self.presumed.values()]
        raw = strictjson.dumps(document) + b"\n"
        if len(raw) > MAX_BYTES:
            raise UnsafeContent(
                f"the inventory would be larger than {MAX_BYTES} bytes", hint="make several bundles"
            )
        return raw

    @property
    def repositories(self) -> list[str]:
        """The repositories of all images, sorted."""
        return sorted({image.repository for image in self.images})

    @property
    def size(self) -> int:
        """How many bytes of content are held."""
        return sum(entry.descriptor.size for entry in self.content.values())


def bare(desc: Descriptor) -> Descriptor:
    """A descriptor without what was said about the content elsewhere."""
    return Descriptor(desc.media_type, desc.digest, desc.size)


def _rank(image: Image) -> tuple[bool, str, str, str]:
    return (not image.tag, image.repository, image.tag, str(image.root.digest))


def _check_names(images: Iterable[Image]) -> None:
    named: dict[str, Image] = {}
    for image in images:
        other = named.setdefault(image.name, image) if image.tag else image
        if other != image:
            raise Conflict(
                f"{image.name} stands for two images, {other.root.digest} and {image.root.digest}",
                hint="give one of them another name",
            )


def _ordered(entries: Iterable[Entry]) -> Mapping[Digest, Entry]:
    """Manifests first, so that whoever reads a stream knows early what is to come."""
    rank = sorted(entries, key=lambda entry: (not entry.descriptor.is_manifest, entry.descriptor.digest))
    return MappingProxyType({entry.descriptor.digest: entry for entry in rank})


def _image_json(image: Image) -> dict[str, Any]:
    result = {"repository": image.repository, "tag": image.tag, **image.root.to_json()}
    if image.platforms:
        result["platforms"] = [str(platform) for platform in image.platforms]
    return result


def _image(value: Any, what: str) -> Image:
    root = Descriptor.from_json(value, what)
    platforms = tuple(Platform.parse(text) for text in _strings(value, "platforms", what))
    repository, tag = _string(value, "repository", what), _string(value, "tag", what)
    image = Image(repository, tag, bare(root), platforms)
    try:
        split(image.name)
    except InvalidReference as error:
        raise InvalidContent(f"{what}: {error.message}") from error
    return image


def _entry_json(entry: Entry) -> dict[str, Any]:
    result = entry.descriptor.to_json()
    # Most inventories are of one layout, whose names have no repositories.
    if any(entry.repositories):
        result["repositories"] = list(entry.repositories)
    if any(entry.holders):
        result["holders"] = list(entry.holders)
    return result


def _entries(fields: Mapping[str, Any], key: str, what: str) -> Mapping[Digest, Entry]:
    entries: dict[Digest, Entry] = {}
    for i, value in enumerate(_list(fields, key, what)):
        where = f"{key}[{i}] of {what}"
        desc = bare(Descriptor.from_json(value, where))
        if desc.digest in entries:
            raise InvalidContent(f"{where} is there twice: {desc.digest}")
        entries[desc.digest] = Entry(
            desc, _strings(value, "repositories", where), _strings(value, "holders", where)
        )
    return MappingProxyType(entries)


def _list(fields: Mapping[str, Any], key: str, what: str) -> list[Any]:
    value = fields.get(key, [])
    if not isinstance(value, list):
        raise InvalidContent(f"{key} of {what} is not a list")
    return value


def _string(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise InvalidContent(f"{key} of {what} is not a string")
    return value


def _strings(fields: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    value = _list(fields, key, what)
    if not all(isinstance(item, str) for item in value):
        raise InvalidContent(f"{key} of {what} is not a list of strings")
    return tuple(value)
