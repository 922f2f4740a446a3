"""Repairing a bundle in place: only what is damaged is fetched again.

A bundle's bytes follow from its inventory, so one whose beginning is whole says what all the rest has to be,
even where that is cut off.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from ocitool import limits, tarballs
from ocitool.bundle.files import BundleFile
from ocitool.bundle.inventory import Inventory
from ocitool.bundle.sinks import PatchSink
from ocitool.bundle.source import INDEX_JSON, INVENTORY, SIGNATURES, annotations_of
from ocitool.bundle.writer import BundleWriter, Plan
from ocitool.digest import Digest
from ocitool.errors import IntegrityError, InvalidContent, NotFound, OciError, Unsupported
from ocitool.events import OnEvent, ignore
from ocitool.layout.index import blob_path
from ocitool.streams import VerifiedReader, chunks
from ocitool.transfer import move
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ocitool.content import Source
    from ocitool.model import Descriptor
    from ocitool.streams import Reader

_HEAD_MEMBERS: Final = 32
_MTIME: Final = (136, 11)  # of the first header: offset and length of the field, octal digits


def repair(
    path: Path, origins: Sequence[Source], *, jobs: int = JOBS, on_event: OnEvent = ignore
) -> list[Descriptor]:
    """Fetch what is damaged in a bundle, or cut off from it, and put it in its place.

    Args:
        path: the bundle, or one of its parts; parts that are missing are made only at the end.
        origins: where content is looked for, in this order.
        jobs: how much is read at once.
        on_event: is told what happens.

    Returns:
        What none of the origins has; it is still damaged.

    Raises:
        InvalidContent, IntegrityError: its beginning is damaged, up to the inventory.
        Unsupported: another tool has packed it, so the places are not known.
        OciError: whatever the origins raise.
    """
    with BundleFile.open(path) as file:
        plan = _plan(file)
        faulty = [
            desc for desc in each(lambda desc: _faulty(file, plan, desc), _content(plan), jobs=jobs) if desc
        ]
    wanted = _AnyOf(origins)
    left: list[Descriptor] = []
    with PatchSink(path) as sink:
        writer = BundleWriter(plan, sink)
        for desc in faulty:
            try:
                move(wanted, writer, [desc], jobs=1, on_event=on_event)
            except NotFound:
                left.append(desc)
        sink.write_at(plan.size - len(tarballs.END), tarballs.END)
    return left


def _plan(file: BundleFile) -> Plan:
    """What the whole bundle has to be, from its beginning."""
    what = f"the bundle {file.name}"
    found: dict[str, bytes] = {}
    wanted = [INDEX_JSON]
    for _, member in zip(range(_HEAD_MEMBERS), _members(file, what), strict=False):
        found[member.name] = file.read_at(member.offset, min(member.size, limits.INDEX_JSON_BYTES))
        if member.name == INDEX_JSON:
            wanted = _named(found[INDEX_JSON], what)
        if wanted and all(name in found for name in wanted):
            break
    else:
        raise InvalidContent(f"{what} can't be repaired: its beginning is damaged", hint="make it again")
    raw, *signatures = (found[name] for name in wanted)
    plan = Plan(Inventory.parse(raw, f"the inventory of {what}"), signatures, mtime=_mtime(file))
    if any(file.read_at(start, len(head)) != head for start, head in plan.head):
        raise Unsupported(
            f"{what} can't be repaired in place: another tool has packed or changed it", hint="make it again"
        )
    return plan


def _named(raw: bytes, what: str) -> list[str]:
    """Where the inventory and what signs it stand, as index.json tells it."""
    told = annotations_of(raw)
    try:
        digests = map(Digest.parse, f"{told.get(INVENTORY, '')} {told.get(SIGNATURES, '')}".split())
        return [blob_path(digest) for digest in digests]
    except OciError as error:
        raise InvalidContent(f"{INDEX_JSON} of {what}: {error.message}", hint="make it again") from error


def _members(file: BundleFile, what: str) -> Iterator[tarballs.Member]:
    """The members that can be read before the first one that can't."""
    try:
        yield from tarballs.members(file, what)
    except OciError:
        return


def _mtime(file: BundleFile) -> int:
    try:
        return int(file.read_at(*_MTIME), 8)
    except ValueError:
        return 0  # no header of ours, which `_plan` finds out


def _content(plan: Plan) -> list[Descriptor]:
    return [entry.descriptor for entry in plan.inventory.content.values()]


def _faulty(file: BundleFile, plan: Plan, desc: Descriptor) -> Descriptor | None:
    """A piece of content, if it, or the header before it, is not what it has to be."""
    header, start = plan.header(desc.digest), plan.starts[desc.digest]
    if file.read_at(start, len(header)) != header:
        return desc
    at = start + len(header)
    try:
        for _ in chunks(VerifiedReader(file.region(at, at + desc.size), desc.digest, desc.size)):
            pass
    except IntegrityError:
        return desc
    return None


class _AnyOf:
    """The first of several sources that has something."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def resolve(self, ref: str, /) -> Descriptor:
        raise NotFound(f"{ref} is looked up by its digest alone")  # pragma: no cover - never asked

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        for source in self._sources:
            with ExitStack() as stack:
                try:
                    reader = stack.enter_context(source.fetch(desc, offset=offset))
                except NotFound:
                    continue
                yield reader
                return
        raise NotFound(f"{desc.digest} is in none of the places to repair from")
