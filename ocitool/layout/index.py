"""`index.json`: the roots and names of a layout (image-spec, image-layout.md, "index.json file").

Entries are kept as the JSON they were read from, so that what other tools wrote there survives.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits, mediatypes, strictjson
from ocitool.content import Source, read_verified
from ocitool.digest import Digest
from ocitool.digesttags import subject_of
from ocitool.errors import InvalidContent, InvalidReference, NotFound, OciError, Unsupported
from ocitool.model import Descriptor, sniff_media_type

if TYPE_CHECKING:
    from collections.abc import Callable

# annotations.md: "org.opencontainers.image.ref.name Name of the reference for a target (string).
# SHOULD only be considered valid when on descriptors on `index.json` within image layout."
REF_NAME: Final = "org.opencontainers.image.ref.name"
# The full name, as containerd and Docker write it beside the short one.
IMAGE_NAME: Final = "io.containerd.image.name"
_NAMES: Final = (REF_NAME, IMAGE_NAME)
# image-layout.md gives names no grammar. What could mislead a terminal, or who reads lines, is refused.
_NAME: Final = re.compile(r"[!-~]{0,512}")


class IndexJson:
    """The document in memory; `dump` gives it back."""

    def __init__(self, raw: bytes | None = None) -> None:
        """Read the document, or start an empty one.

        Raises:
            InvalidContent: it is not an image index.
        """
        if raw is None:
            raw = strictjson.dumps({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": []})
        self._fields = strictjson.load_object(raw, "index.json")
        if self._fields.get("schemaVersion") != 2:
            raise InvalidContent(
                f"index.json has schemaVersion {self._fields.get('schemaVersion')!r:.60}, not 2"
            )
        manifests = self._fields.get("manifests")
        if not isinstance(manifests, list):
            raise InvalidContent("manifests of index.json is missing or not a list")
        self._entries = [
            (_readable(entry, f"manifests[{i}] of index.json"), entry) for i, entry in enumerate(manifests)
        ]

    def dump(self) -> bytes:
        """The document's bytes.

        Raises:
            OciError: it has grown larger than it could be read again.
        """
        raw = strictjson.dumps({**self._fields, "manifests": [entry for _, entry in self._entries]})
        if len(raw) > limits.INDEX_JSON_BYTES:
            raise OciError(f"index.json would be larger than {limits.INDEX_JSON_BYTES} bytes")
        return raw

    @property
    def entries(self) -> list[Descriptor]:
        """The roots, in the order of the document."""
        return [desc for desc, _ in self._entries if desc]

    def find(self, ref: str) -> list[Descriptor]:
        """The entries of a name."""
        return [desc for desc in self.entries if ref in names(desc)]

    def put(self, desc: Descriptor, ref: str = "") -> None:
        """Add a root with a name, which moves if it exists, or without one unless that is there already."""
        if ref:
            self.remove_name(ref)
        elif any(entry == desc and not names(entry) for entry in self.entries):
            return
        entry = desc.to_json()
        # The content is in the layout, and names come from this layout's user, not from where it was found.
        entry.pop("data", None)
        annotations = {key: value for key, value in desc.annotations.items() if key not in _NAMES}
        if ref:
            annotations |= {REF_NAME: ref, IMAGE_NAME: ref} if is_full(ref) else {REF_NAME: ref}
        _annotate(entry, annotations)
        self._entries.append((Descriptor.from_json(entry, "a new entry of index.json"), entry))

    def remove_name(self, ref: str) -> None:
        """Take a name away, if anything has it; an entry whose last name it was goes too."""
        self._edit(lambda desc: _without_name(desc, ref) if ref in names(desc) else desc)

    def remove(self, digest: Digest) -> None:
        """Take every entry of some content away."""
        self._edit(lambda desc: None if desc.digest == digest else desc)

    def remove_unnamed(self, descs: set[Descriptor]) -> None:
        """Take the entries without a name of some content away."""
        self._edit(lambda desc: None if desc in descs and not names(desc) else desc)

    def _edit(self, change: Callable[[Descriptor], Descriptor | None]) -> None:
        edited: list[tuple[Descriptor | None, dict[str, Any]]] = []
        for desc, entry in self._entries:
            changed = change(desc) if desc else None
            if changed is not None and changed is not desc:
                _annotate(entry, dict(changed.annotations))
            if changed is not None or desc is None:
                edited.append((changed, entry))
        self._entries = edited


def _readable(entry: Any, what: str) -> Descriptor | None:
    """An entry's descriptor; None if its digest has an algorithm that nobody here can compute.

    descriptor.md: "Implementations SHOULD allow digests with unrecognized algorithms to pass validation if
    they comply with the above grammar." Such an entry stays where it is and names nothing.
    """
    try:
        return Descriptor.from_json(entry, what)
    except Unsupported:
        return None


def _annotate(entry: dict[str, Any], annotations: dict[str, str]) -> None:
    if annotations:
        entry["annotations"] = annotations
    else:
        entry.pop("annotations", None)


def _without_name(desc: Descriptor, ref: str) -> Descriptor | None:
    kept = {key: value for key, value in desc.annotations.items() if not (key in _NAMES and value == ref)}
    if not any(key in _NAMES for key in kept):
        return None
    fields = desc.to_json()
    return Descriptor.from_json({**fields, "annotations": kept}, "an entry of index.json")


def blob_path(digest: Digest) -> str:
    """Where a layout has a blob (image-layout.md, "Blobs")."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def names(desc: Descriptor) -> tuple[str, ...]:
    """The names of an entry: none, one, or a short and a full one."""
    return tuple(desc.annotations[key] for key in _NAMES if key in desc.annotations)


def is_beside(desc: Descriptor) -> bool:
    """Whether an entry has digest tags alone: it belongs to an image, as a signature does, and is none."""
    return bool(names(desc)) and all(map(subject_of, names(desc)))


def tags(entries: list[Descriptor]) -> list[str]:
    """One name per entry that has any, the full one where there is one; sorted."""
    return sorted({found[-1] for found in map(names, entries) if found})


def names_of(entries: list[Descriptor], desc: Descriptor, *, full: bool) -> list[str]:
    """What an image is called, one name per entry: the full one if asked for, or if short ones coincide."""
    found = [own for own in (names(entry) for entry in entries if entry == desc) if own]
    whole, short = ({own[position] for own in found} for position in (-1, 0))
    return sorted(whole if full or len(short) < len(whole) else short)


def pick(
    entries: list[Descriptor], ref: str, where: str, unlisted: Callable[[Digest], Descriptor | None]
) -> Descriptor:
    """What a name or a digest stands for; "" is the only image that there is.

    Args:
        entries: the roots.
        ref: the name or digest.
        where: how to call the place in an error.
        unlisted: finds content that is no root, by its digest.

    Raises:
        NotFound: nothing has that name.
        InvalidReference: "" and there are several images.
        InvalidContent: the name stands at different content.
    """
    if ref == "":
        return _only(entries, where)
    found = [entry for entry in entries if ref in (*names(entry), str(entry.digest))]
    if not found and (digest := digest_of(ref)) and (desc := unlisted(digest)):
        return desc
    if not found:
        raise NotFound(f"nothing in {where} is named {ref}", hint=listing(entries))
    if len(set(found)) > 1:
        raise InvalidContent(
            f"{ref} names {len(set(found))} different manifests in {where}",
            hint="name one by its digest: " + ", ".join(str(desc.digest) for desc in found),
        )
    return found[0]


def _only(entries: list[Descriptor], where: str) -> Descriptor:
    # What has no name beside something that has one is a referrer of it, or kept by its digest.
    named = [entry for entry in entries if names(entry)]
    candidates = [entry for entry in named if not is_beside(entry)] or named or entries
    if not candidates:
        raise NotFound(f"{where} is empty")
    if len(set(candidates)) > 1:
        raise InvalidReference(f"{where} holds {len(set(candidates))} images", hint=listing(candidates))
    return candidates[0]


def digest_of(ref: str) -> Digest | None:
    """The digest that a name is, if it is one."""
    try:
        return Digest.parse(ref)
    except OciError:
        return None


def sniff(source: Source, digest: Digest, size: int) -> Descriptor:
    """The descriptor of content that nothing describes, by looking at it.

    Raises:
        IntegrityError: it is not what the digest names.
    """
    desc = Descriptor("application/octet-stream", digest, size)
    if size > limits.MANIFEST_BYTES:
        return desc
    try:
        media_type = sniff_media_type(read_verified(source, desc), f"blob {digest}")
    except InvalidContent:
        return desc
    return replace(desc, media_type=media_type)


def is_full(ref: str) -> bool:
    """Whether a name is more than a tag: it has a repository in front."""
    return "/" in ref or ":" in ref


def check_name(ref: str) -> None:
    """Make sure that an image can have a name in a layout.

    Raises:
        InvalidReference: it can't.
    """
    if not _NAME.fullmatch(ref):
        raise InvalidReference(
            f"{ref!r:.80} can't be a name in an image layout",
            hint="a name has up to 512 visible ASCII characters",
        )


def listing(entries: list[Descriptor]) -> str:
    """What a person could have meant, for a hint."""
    found = tags(entries) or [str(desc.digest) for desc in entries]
    if not found:
        return "the layout is empty"
    shown = ", ".join(found[:20])
    return f"it has {shown}" + (f" and {len(found) - 20} more" if len(found) > 20 else "")
