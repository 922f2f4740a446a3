"""Whether a layout is what the specification and its own names say, and what can be made good.

All problems are found before any is reported, and nothing is ever thrown away: what is wrong is moved to
`.ocitool/damaged/`, where its owner can look at it.
"""

from __future__ import annotations

import enum
import json
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ocitool import limits, mediatypes, strictjson
from ocitool.content import Source, read_manifest
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, Unsupported
from ocitool.layout import files
from ocitool.layout.index import IndexJson, names, sniff
from ocitool.layout.locks import INDEX_LOCK, PRIVATE, lock
from ocitool.layout.store import INDEX_JSON, OCI_LAYOUT, VERSION, check_version, holds_nothing
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.digest import Digest
    from ocitool.layout.store import LayoutStore

DAMAGED: Final = "damaged"


class Kind(enum.Enum):
    """What a problem is about."""

    LAYOUT = "layout"  # oci-layout or index.json is missing or broken
    DAMAGED = "damaged"  # a blob is not what its name says
    MISSING = "missing"  # something is named that is not there
    INVALID = "invalid"  # a manifest breaks the specification, or a descriptor lies
    AMBIGUOUS = "ambiguous"  # one name, different content
    STRAY = "stray"  # something lies among the blobs that is none


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what it is about.
        where: the file, in the layout.
        message: what is wrong with it.
        content: what would have to be there, where that is known.
    """

    kind: Kind
    where: str
    message: str
    content: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a problem; "" where nothing could be."""

    problem: Problem
    done: str


def check(store: LayoutStore) -> list[Problem]:
    """Read all of a layout and list everything that is wrong with it.

    A part of an index that is not here is no problem: image-layout.md, "The blobs directory MAY be missing
    referenced blobs". A part of an image is one, because without it the image is of no use.

    Raises:
        NotFound: there is no layout.
    """
    problems = list(_documents(store.path))
    problems += _blobs(store)
    if any(problem.kind is Kind.LAYOUT for problem in problems):
        return problems
    entries = store.entries()
    problems += _names(entries)
    walk = _Walk(store, {problem.where for problem in problems})
    for entry in entries:
        problems += walk.problems(entry, f"index.json ({', '.join(names(entry)) or 'no name'})")
    return problems


def repair(store: LayoutStore, source: Source | None = None) -> list[Repair]:
    """Make good what can be, and say what was done.

    Documents are rebuilt from what is left of them and from the blobs; damaged blobs are set aside, and
    fetched again where a source is given; they are fetched by the next pull otherwise.
    """
    repairs = [Repair(problem, _repair_document(store, problem)) for problem in _documents(store.path)]
    for problem in check(store):
        done = ""
        if problem.kind in {Kind.DAMAGED, Kind.STRAY}:
            done = f"moved to {_set_aside(store.path, problem.where)}"
        if source and problem.content and problem.kind in {Kind.DAMAGED, Kind.MISSING}:
            done = "; ".join(filter(None, (done, _fetch_again(store, source, problem.content))))
        repairs.append(Repair(problem, done))
    return repairs


def _documents(path: Path) -> Iterator[Problem]:
    """image-layout.md: both files "MUST exist"."""
    if not path.is_dir() or _is_not_yet(path):
        raise NotFound(f"there is no image layout at {path}")
    for name, parse in ((OCI_LAYOUT, check_version), (INDEX_JSON, IndexJson)):
        try:
            with files.translated(name, path), files.directory(path) as root:
                parse(files.read_file(root, name, limits.INDEX_JSON_BYTES))
        except NotFound:
            yield Problem(Kind.LAYOUT, name, "is missing")
        except (InvalidContent, Unsupported, IntegrityError) as error:
            yield Problem(Kind.LAYOUT, name, error.message.removeprefix(f"{name} "))
    if not os.path.lexists(path / "blobs"):
        yield Problem(Kind.LAYOUT, "blobs", "is missing")


def _is_not_yet(path: Path) -> bool:
    try:
        return holds_nothing(path)
    except InvalidContent:
        return False


def _blobs(store: LayoutStore) -> Iterator[Problem]:
    """image-layout.md: "The content of `blobs/<alg>/<encoded>` MUST match the digest `<alg>:<encoded>`"."""
    known = _described(store)
    for digest, found in store.blobs:
        where = f"blobs/{digest.algorithm}/{digest.hex}"
        desc = known.get(digest)
        if not stat.S_ISREG(found.st_mode):
            yield Problem(Kind.DAMAGED, where, "is a link or no regular file", desc)
        elif not store.blobs.is_sound(Descriptor("", digest, found.st_size)):
            yield Problem(Kind.DAMAGED, where, "is not what its name says", desc)
    for where in store.blobs.strays():
        yield Problem(Kind.STRAY, where, "is not named by a digest")


def _described(store: LayoutStore) -> dict[Digest, Descriptor]:
    """What the sound manifests of a layout say about its content."""
    found: dict[Digest, Descriptor] = {}
    try:
        level = store.entries()
    except OciError:
        return found
    while level:
        new = {desc.digest: desc for desc in level if desc.digest not in found}
        found.update(new)
        level = []
        for desc in new.values():
            try:
                level += read_manifest(store, desc).children if desc.is_manifest else ()
            except OciError:
                continue  # told when the roots are checked
    return found


def _names(entries: list[Descriptor]) -> Iterator[Problem]:
    by_name: dict[str, set[Digest]] = {}
    for entry in entries:
        for name in names(entry):
            by_name.setdefault(name, set()).add(entry.digest)
    for name, digests in by_name.items():
        if len(digests) > 1:
            message = f"gives the name {name} to {len(digests)} different images"
            yield Problem(Kind.AMBIGUOUS, INDEX_JSON, message)


class _Walk:
    """Follows roots to their leaves, and looks at each piece of content once."""

    def __init__(self, store: LayoutStore, damaged: set[str]) -> None:
        self._store = store
        self._sizes = {digest: found.st_size for digest, found in store.blobs}
        self._damaged = damaged
        self._seen: set[Descriptor] = set()

    def problems(self, root: Descriptor, parent: str) -> Iterator[Problem]:
        """What is wrong with content that `parent` names, and with what it names in turn."""
        todo = [(root, parent)]
        while todo:
            desc, parent = todo.pop()
            where = f"blobs/{desc.digest.algorithm}/{desc.digest.hex}"
            if desc in self._seen or where in self._damaged:
                continue
            self._seen.add(desc)
            try:
                self._check_size(desc, parent)
                todo += [(child, f"{desc.media_type} {desc.digest}") for child in self._children(desc)]
            except NotFound as error:
                yield Problem(Kind.MISSING, where, error.message, desc)
            except OciError as error:
                yield Problem(Kind.INVALID, where, error.message, desc)

    def _check_size(self, desc: Descriptor, parent: str) -> None:
        size = self._sizes.get(desc.digest)
        if size is None:
            raise NotFound(f"is named by {parent}, but not there")
        if size != desc.size:
            raise InvalidContent(f"has {size} bytes, not the {desc.size} that {parent} says")

    def _children(self, desc: Descriptor) -> Iterator[Descriptor]:
        for child in read_manifest(self._store, desc).children if desc.is_manifest else ():
            # Whoever copies some platforms leaves the others out, and layers that may not be distributed.
            may_lack = desc.is_index or mediatypes.is_nondistributable(child.media_type)
            if not may_lack or child.digest in self._sizes:
                yield child


def _repair_document(store: LayoutStore, problem: Problem) -> str:
    path = store.path
    with files.translated(problem.where, path), lock(path, INDEX_LOCK) as private:
        if problem.where == "blobs":
            with files.directory(path, "blobs", create=True):
                return "made"
        kept = _set_aside(path, problem.where) if os.path.lexists(path / problem.where) else ""
        content = strictjson.dumps(VERSION)
        if problem.where == INDEX_JSON:
            content = _rebuilt_index(store, (path / kept).read_bytes() if kept else b"").dump()
        with files.directory(path) as root:
            files.replace_file(private, root, problem.where, content)
    return "rebuilt" + (f"; the broken one is now {kept}" if kept else "")


def _rebuilt_index(store: LayoutStore, broken: bytes) -> IndexJson:
    """What can be read of a broken index, then the manifests among the blobs that no other one names."""
    index = IndexJson()
    for entry in _readable_entries(broken):
        if store.blobs.is_sound(entry):
            for name in names(entry) or ("",):
                index.put(entry, name)
    manifests = [
        desc
        for digest, found in store.blobs
        if store.blobs.is_sound(Descriptor("", digest, found.st_size))
        and (desc := sniff(store, digest, found.st_size)).is_manifest
    ]
    named = {child.digest for desc in manifests for child in _children(store, desc)}
    listed = {entry.digest for entry in index.entries}
    for desc in manifests:
        if desc.digest not in named | listed:
            index.put(desc)
    return index


def _children(store: LayoutStore, desc: Descriptor) -> tuple[Descriptor, ...]:
    try:
        return read_manifest(store, desc).children
    except OciError:
        return ()


def _readable_entries(broken: bytes) -> Iterator[Descriptor]:
    """The descriptors that still stand whole in a document that is cut off or overwritten."""
    text = broken[: limits.INDEX_JSON_BYTES].decode(errors="replace")
    _, _, rest = text.partition('"manifests"')
    decoder = json.JSONDecoder()
    position = rest.find("{")
    while position >= 0:
        try:
            value: Any
            value, end = decoder.raw_decode(rest, position)
            yield Descriptor.from_json(value, "an entry of a broken index.json")
        except (ValueError, OciError, RecursionError):
            end = position + 1
        position = rest.find("{", end)


def _set_aside(path: Path, where: str) -> str:
    """Move a file out of the way, and say where to."""
    directory, _, name = where.rpartition("/")
    new = f"{name}.{secrets.token_hex(4)}"
    with (
        files.translated(where, path),
        files.directory(path, *filter(None, directory.split("/"))) as parent,
        files.directory(path, PRIVATE, DAMAGED, create=True) as damaged,
    ):
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=damaged)
    return f"{PRIVATE}/{DAMAGED}/{new}"


def _fetch_again(store: LayoutStore, source: Source, desc: Descriptor) -> str:
    try:
        with source.fetch(desc) as reader:
            store.push(desc, reader)
    except OciError as error:
        return f"not fetched again: {error.message}"
    return "fetched again"
