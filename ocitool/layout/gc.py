"""Garbage: what no root of a layout reaches and no writer relies on.

image-layout.md: "The blobs directory MAY contain blobs which are not referenced by any of the refs." They
are what a deleted or moved name, or an interrupted pull, leaves behind.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ocitool.errors import IntegrityError, InvalidContent, UnsafeContent
from ocitool.layout import files
from ocitool.layout.graph import mentioned, parents_first, reachable
from ocitool.layout.index import names, sniff
from ocitool.layout.locks import INDEX_LOCK, LEASES, PRIVATE, if_unheld, lock
from ocitool.layout.partials import PARTIAL
from ocitool.model import Descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.digest import Digest
    from ocitool.layout.store import LayoutStore

PARTIAL_AGE: Final = 7 * 86_400.0
"""How long an interrupted download is kept for whoever tries again, in seconds."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """What can go, or has gone.

    Attributes:
        blobs: content that nothing reaches, what names other content before that.
        roots: entries of `index.json` about content that goes: its signatures, its SBOMs.
        leftovers: private files of processes that are gone, as (path in the layout, bytes).
        held: bytes of content that would go if no process that is at work relied on it.
    """

    blobs: tuple[Descriptor, ...]
    roots: tuple[Descriptor, ...]
    leftovers: tuple[tuple[str, int], ...]
    held: int = 0

    @property
    def size(self) -> int:
        """How much space it takes, in bytes."""
        return sum(blob.size for blob in self.blobs) + sum(size for _, size in self.leftovers)


def plan(store: LayoutStore, *, min_age: float = 0.0, partial_age: float = PARTIAL_AGE) -> Garbage:
    """Say what `collect` would remove now.

    Args:
        store: the layout.
        min_age: spare blobs younger than this, in seconds; for layouts into which other tools write at the
            same time, because those don't say what they rely on.
        partial_age: spare interrupted downloads younger than this, in seconds.

    Raises:
        InvalidContent, IntegrityError: a manifest is damaged, so what it needs is not known.
    """
    with store.collecting():
        return _find(store, min_age, partial_age)


def collect(store: LayoutStore, *, min_age: float = 0.0, partial_age: float = PARTIAL_AGE) -> Garbage:
    """Remove garbage. Writers that are at work keep what they rely on; the arguments are those of `plan`.

    Raises:
        InvalidContent, IntegrityError: as `plan`; nothing has been removed.
    """
    with store.collecting():
        garbage = _find(store, min_age, partial_age)
        # In this order a process that dies on the way leaves garbage, and nothing that lacks a part.
        store.forget(garbage.roots)
        for blob in garbage.blobs:
            store.blobs.remove(blob.digest)
        for path, _ in garbage.leftovers:
            *directory, name = path.split("/")
            with files.directory(store.path, *directory) as parent:
                _remove_unheld(parent, name)
        return garbage


def _find(store: LayoutStore, min_age: float, partial_age: float) -> Garbage:
    now = time.time()
    stored = dict(store.blobs)
    sizes = {digest: stat.st_size for digest, stat in stored.items()}
    leased = store.leased() & set(stored)
    try:
        live, dead_roots = _live(store, sizes, leased)
        held = live - _live(store, sizes, set())[0] if leased else set()
    except (InvalidContent, IntegrityError) as error:
        error.add_note("so it is not known what it needs, and nothing was collected")
        error.hint = "`ocitool store check` lists what is damaged"
        raise
    dead = [
        _described(store, digest, stat.st_size)
        for digest, stat in stored.items()
        if digest not in live and now - stat.st_mtime >= min_age
    ]
    return Garbage(
        tuple(parents_first(store, dead)),
        tuple(dead_roots),
        tuple(_leftovers(store, now, partial_age)),
        sum(sizes.get(digest, 0) for digest in held),
    )


def _live(
    store: LayoutStore, stored: dict[Digest, int], leased: set[Digest]
) -> tuple[set[Digest], list[Descriptor]]:
    """What is needed, and the roots that are not because they are about something that is not."""
    roots = store.entries()
    pinned = [_described(store, digest, stored[digest]) for digest in leased]
    named = {root for root in roots if names(root)}
    subjects = {root: store.subject(root) for root in roots if root not in named}
    # A referrer lives as long as its subject. One whose subject is not here was put here on purpose.
    waiting = [root for root, subject in subjects.items() if subject in stored]
    live = set(_reached(store, [root for root in roots if root not in waiting] + pinned))
    while ready := [root for root in waiting if subjects[root] in live]:
        waiting = [root for root in waiting if root not in ready]
        live |= set(_reached(store, ready))
    return live, waiting


def _reached(store: LayoutStore, roots: list[Descriptor]) -> Iterator[Digest]:
    for digest, desc in reachable(store, roots).items():
        yield digest
        yield from mentioned(store, desc)


def _described(store: LayoutStore, digest: Digest, size: int) -> Descriptor:
    try:
        return sniff(store, digest, size)
    except (IntegrityError, UnsafeContent):
        # It is not what its name says, so it names nothing.
        return Descriptor("application/octet-stream", digest, size)


def _leftovers(store: LayoutStore, now: float, partial_age: float) -> Iterator[tuple[str, int]]:
    """Private files of processes that are gone."""
    with lock(store.path, INDEX_LOCK) as private:
        # Whoever writes these holds the lock, so whoever wrote them did not live to rename them.
        for name in files.names_in(private):
            if name.startswith(("index.json.", "oci-layout.")):
                yield f"{PRIVATE}/{name}", os.stat(name, dir_fd=private, follow_symlinks=False).st_size
    for directory in (PARTIAL, LEASES):
        with files.directory(store.path, PRIVATE, directory, create=True) as parent:
            for name in files.names_in(parent):
                with suppress(FileNotFoundError), if_unheld(parent, name) as unheld:
                    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    if unheld and now - found.st_mtime >= partial_age:
                        yield f"{PRIVATE}/{directory}/{name}", found.st_size


def _remove_unheld(parent: int, name: str) -> None:
    # With the lock in hand: who waits for it finds out that the file has lost its name, and makes a new one.
    with if_unheld(parent, name) as unheld:
        if unheld:
            files.unlink(parent, name)
