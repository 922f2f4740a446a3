"""A bundle as a store to read from, straight over its file."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits, mediatypes, tarballs
from ocitool.bundle.files import BundleFile
from ocitool.bundle.inventory import MAX_BYTES, Inventory
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, UnsafeContent
from ocitool.layout.index import IMAGE_NAME, REF_NAME, IndexJson, blob_path, is_full, names, pick, tags
from ocitool.layout.referring import Subjects
from ocitool.strictjson import dumps, load_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Self

    from ocitool.model import Descriptor
    from ocitool.streams import Reader

OCI_LAYOUT: Final = "oci-layout"
INDEX_JSON: Final = "index.json"
INVENTORY: Final = "org.ocitool.bundle.inventory"
"""The annotation of index.json with the digest of the inventory."""
SIGNATURES: Final = "org.ocitool.bundle.signatures"
"""The annotation of index.json with the digests of signatures over the inventory, with spaces between."""

_MAX_MEMBERS: Final = limits.GRAPH_NODES


class BundleSource:
    """A bundle's content, read in place.

    Implements Source, Lister and Referrers, and may be used from several threads. What is read is checked by
    whoever consumes it, as with every source; `ocitool.bundle.verify` checks all of it.

    Attributes:
        file: the file, or its parts.
        members: what the tar file holds, by name.
        inventory: what the bundle holds and presumes.
    """

    def __init__(self, file: BundleFile) -> None:
        """Read the table of contents; `close` closes the file, and so does a failure.

        Raises:
            InvalidContent: it is no bundle.
            IntegrityError: it is truncated, or its inventory is damaged.
            UnsafeContent: it holds what could leave it, or exceeds a limit.
        """
        self.file = file
        self.name = f"the bundle {file.name}"
        with ExitStack() as stack:
            stack.callback(file.close)
            self._read()
            stack.pop_all()

    def _read(self) -> None:
        self.members: dict[str, tarballs.Member] = {}
        self._scan()
        raw = self.read(INDEX_JSON, limits.INDEX_JSON_BYTES)
        try:
            self._index = IndexJson(raw)
            self._annotations = annotations_of(raw)
        except InvalidContent as error:
            error.add_note(f"in {self.name}")
            error.hint = error.hint or "copy it again"
            raise
        self.inventory_digest = self._digests(INVENTORY)[0]
        self.inventory = Inventory.parse(self.inventory_bytes, f"the inventory of {self.name}")
        # Whoever reads the layout, and not the inventory, is to see the same images.
        if not _agree(self._index, self.inventory):
            raise IntegrityError(
                f"index.json of {self.name} is not what its inventory says",
                hint="something has changed the bundle: make it again",
            )

    @classmethod
    def open(cls, path: Path) -> BundleSource:
        """Open a bundle by its name, or by that of one of its parts."""
        return cls(BundleFile.open(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _scan(self) -> None:
        try:
            for member in tarballs.members(self.file, self.name):
                if member.link:
                    raise UnsafeContent(f"{self.name} holds the link {member.name}")
                if len(self.members) >= _MAX_MEMBERS:
                    raise UnsafeContent(f"{self.name} holds more than {_MAX_MEMBERS} files")
                self.members[member.name] = member
        except IntegrityError as error:
            if self.file.parts > 1:
                error.hint = f"the parts after number {self.file.parts} are missing"
            raise
        if OCI_LAYOUT not in self.members or INDEX_JSON not in self.members:
            raise InvalidContent(f"{self.name} holds no image layout")

    def _digests(self, key: str) -> list[Digest]:
        value = self._annotations.get(key)
        if value is None and key == INVENTORY:
            raise InvalidContent(
                f"{self.name} has no inventory",
                hint="`ocitool copy` reads archives that are no bundles, as oci-archive:FILE",
            )
        try:
            return [Digest.parse(digest) for digest in value.split(" ")] if value else []
        except OciError as error:
            raise InvalidContent(f"index.json of {self.name}: {error.message}") from error

    @cached_property
    def inventory_bytes(self) -> bytes:
        """The inventory as it stands in the bundle; its digest is right."""
        raw = self.read(blob_path(self.inventory_digest), MAX_BYTES)
        actual = Digest.of(raw, self.inventory_digest.algorithm)
        if actual != self.inventory_digest:
            raise IntegrityError(
                f"the inventory of {self.name} is damaged",
                expected=str(self.inventory_digest),
                actual=str(actual),
                hint="copy the bundle again",
            )
        return raw

    @property
    def signatures(self) -> list[Digest]:
        """The digests of what claims to sign the inventory."""
        return self._digests(SIGNATURES)

    def read(self, name: str, limit: int) -> bytes:
        """Read a small member.

        Raises:
            InvalidContent: it is not there.
            UnsafeContent: it is larger than `limit` bytes.
        """
        member = self.members.get(name)
        if member is None:
            raise InvalidContent(f"{self.name} has no {name}")
        if member.size > limit:
            raise UnsafeContent(f"{name} of {self.name} has {member.size} bytes; at most {limit} are read")
        return self.file.read_at(member.offset, member.size)

    def resolve(self, ref: str, /) -> Descriptor:
        """See `Source`: a name, a digest, or "" for the only image that there is."""
        return pick(self.entries(), ref, self.name, self._unlisted)

    def _unlisted(self, digest: Digest) -> Descriptor | None:
        entry = self.inventory.content.get(digest)
        return entry.descriptor if entry else None

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        """See `Source`."""
        member = self.members.get(blob_path(desc.digest))
        if member is None:
            raise NotFound(f"{desc.digest} is not in {self.name}")
        yield self.file.region(member.offset + offset, member.offset + member.size)

    def tags(self) -> list[str]:
        """See `Lister`."""
        return tags(self.entries())

    def entries(self) -> list[Descriptor]:
        """The roots, names included."""
        return self._index.entries

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> list[Descriptor]:
        """See `Referrers`; those that are in the bundle itself, and whole."""
        found = self._referrers.get(desc.digest, [])
        return [one for one in found if artifact_type in {"", one.artifact_type}]

    @cached_property
    def _referrers(self) -> Mapping[Digest, list[Descriptor]]:
        """Every referrer is among the roots, by what it refers to."""
        subjects = Subjects(self)
        found: dict[Digest, list[Descriptor]] = {}
        for root in {image.root for image in self.inventory.images}:
            with suppress(IntegrityError):  # which is told of the root itself
                if subject := subjects.of(root):
                    found.setdefault(subject, []).append(subjects.as_referrer(root))
        return {subject: sorted(roots, key=lambda root: root.digest) for subject, roots in found.items()}


def index_json(inventory: Inventory, annotations: Mapping[str, str]) -> bytes:
    """The index.json that follows from an inventory."""
    roots = dict.fromkeys((image.root, image.name) for image in inventory.images)
    return dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_INDEX,
            "manifests": [_entry(root, name) for root, name in roots],
            "annotations": dict(annotations),
        }
    )


def _entry(root: Descriptor, name: str) -> dict[str, Any]:
    """As a layout writes it: containerd wants full names a second time."""
    if not name:
        return root.to_json()
    return {
        **root.to_json(),
        "annotations": {REF_NAME: name, IMAGE_NAME: name} if is_full(name) else {REF_NAME: name},
    }


def _agree(index: IndexJson, inventory: Inventory) -> bool:
    """Whether both list the same images under the same names."""
    listed = {(names(entry)[:1], entry.media_type, entry.digest, entry.size) for entry in index.entries}
    return listed == {
        ((image.name,) if image.name else (), image.root.media_type, image.root.digest, image.root.size)
        for image in inventory.images
    }


def annotations_of(raw: bytes) -> dict[str, str]:
    """The annotations of an index.json itself.

    Raises:
        InvalidContent: they are no map of strings.
    """
    found = load_object(raw, INDEX_JSON).get("annotations", {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidContent("annotations of index.json does not map strings to strings")
    return found
