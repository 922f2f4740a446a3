"""The one way that bytes move between stores.

`copy` walks the graph of descriptors under a root and moves what the destination lacks: blobs first and in
parallel, then manifests from the leaves up, the name last. So whatever the destination shows is whole.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final, TypeVar

from ocitool.content import Mounter, Resumer, Source, Store, digest_tags, read_verified
from ocitool.digesttags import beside, tag_of
from ocitool.errors import IntegrityError, OciError, RegistryError
from ocitool.events import Advanced, Event, Finished, OnEvent, Planned, Retrying, Started, ignore
from ocitool.graph import walk
from ocitool.reference import is_digest
from ocitool.selection import EVERYTHING, Selection, select
from ocitool.streams import CountingReader
from ocitool.workers import JOBS, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from ocitool.model import Descriptor

R = TypeVar("R")

_TRIES: Final = 4
_RETRY_DELAY: Final = 1.0  # seconds, doubled each time


def copy(  # noqa: PLR0913 - the one verb of the library; what varies is by keyword
    src: Source,
    dst: Store,
    ref: str,
    *,
    to: str | None = None,
    platforms: Selection = EVERYTHING,
    referrers: bool = False,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """Copy what `ref` names, and everything that it names in turn, from one store into another.

    Args:
        src: where it is.
        dst: where it goes; what is there already is not moved again.
        ref: a tag or a digest in `src`.
        to: its name in `dst`; None keeps `ref`.
        platforms: which part of an index to copy.
        referrers: copy what refers to each manifest as well (signatures, SBOMs), and what has its digest in
            its tag.
        jobs: how many blobs may be on their way at once.
        on_event: is told what happens; see `ocitool.events`.

    Returns:
        The descriptor of what was written: the root's own, or that of a new, smaller index.

    Raises:
        NotFound: `ref`, a platform or some content is not in `src`.
        IntegrityError: content is not what its descriptor names, twice in a row; or `to` is a digest, and
            not that of what would be written.
        OciError: whatever the stores raise.
    """
    return copy_graph(
        src,
        dst,
        src.resolve(ref),
        ref=ref,
        to=ref if to is None else to,
        platforms=platforms,
        referrers=referrers,
        jobs=jobs,
        on_event=on_event,
    )


def copy_graph(  # noqa: PLR0913 - as copy
    src: Source,
    dst: Store,
    root: Descriptor,
    *,
    to: str,
    ref: str = "",
    platforms: Selection = EVERYTHING,
    referrers: bool = False,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """As `copy`, for a root that has been resolved already; `to` may be its digest, for no name at all.

    `ref` is its name in `src` where it has one.
    """
    selected = select(src, root, platforms)
    written = replace(selected.root, data=None)
    if is_digest(to) and to not in {str(root.digest), str(written.digest)}:
        raise IntegrityError(
            f"{written.digest} can't be written as {to}", expected=to, actual=str(written.digest)
        )
    mover = _Mover(src, dst, on_event)
    with Workers(jobs, mover.stop) as workers:
        graph = walk(src, selected, mover.read, workers, with_referrers=referrers)
        on_event(Planned((*graph.leaves.values(), *graph.manifests.values())))
        # The largest first, so that the last one to end is a small one.
        workers.each(mover.move, sorted(graph.leaves.values(), key=lambda leaf: leaf.size, reverse=True))
        for rank in graph.ranks():
            workers.each(lambda desc: mover.move(desc, graph.content[desc.digest]), rank)
    if referrers:
        # Before the name: whoever sees that finds the signatures as well.
        for name in digest_tags(src, graph.manifests.values(), ref):
            beside_it = beside(to, tag_of(name))
            copy_graph(src, dst, src.resolve(name), ref=name, to=beside_it, jobs=jobs, on_event=on_event)
    # A new index has another digest than the one that was asked for.
    dst.tag(written, str(written.digest) if is_digest(to) else to)
    return written


def move(
    src: Source, dst: Store, descs: Iterable[Descriptor], *, jobs: int = JOBS, on_event: OnEvent = ignore
) -> None:
    """Copy content, each piece by itself and not what it names; in the given order where `jobs` is 1.

    What a descriptor carries itself (`data`) is not asked for.

    Raises:
        OciError: as `copy`.
    """
    mover = _Mover(src, dst, on_event)
    with Workers(jobs, mover.stop) as workers:
        workers.each(mover.move, descs)


class _Mover:
    """Moves one node at a time into the destination, and tells the listener."""

    def __init__(self, src: Source, dst: Store, on_event: OnEvent) -> None:
        self._src = src
        self._dst = dst
        self._on_event = on_event
        self.stop = threading.Event()

    def read(self, desc: Descriptor) -> bytes:
        """The content of a manifest."""
        return self._repeated(desc, lambda _: read_verified(self._src, desc))

    def move(self, desc: Descriptor, content: bytes | None = None) -> None:
        """Copy a node, unless the destination has it; `content` is what is known of it already."""
        try:
            how = self._move(desc, desc.data if content is None else content)
        except OciError as error:
            error.add_note(f"while copying {desc.media_type} {desc.digest}")
            raise
        self._tell(Finished(desc, how))

    def _move(self, desc: Descriptor, content: bytes | None) -> Literal["copied", "skipped", "mounted"]:
        if self._dst.exists(desc):
            return "skipped"
        if content is not None:
            self._tell(Started(desc))
            self._dst.push(desc, CountingReader(BytesIO(content), _Progress(desc, self._tell)))
            return "copied"
        if isinstance(self._dst, Mounter) and self._dst.mount(desc, self._src):
            return "mounted"
        return self._repeated(desc, partial(self._transfer, desc))

    def _repeated(self, desc: Descriptor, attempt: Callable[[_Progress], R]) -> R:
        """Move bytes; a transfer that got somewhere before it failed is worth another try.

        The registry's own layer repeats single requests. What it can't repeat is a body that it was
        sending, because that comes from the other side: so the whole node is repeated, here.
        """
        lost, spoiled = 0, False
        while True:
            progress = _Progress(desc, self._tell)
            try:
                return attempt(progress)
            except IntegrityError as error:
                # Once is an accident on the way; twice is what the source holds.
                if spoiled:
                    raise
                spoiled = True
                self._pause(desc, error, 0)
            except RegistryError as error:
                lost += 1
                if not (error.temporary and progress.moved) or lost == _TRIES:
                    raise
                self._pause(desc, error, _RETRY_DELAY * 2 ** (lost - 1))

    def _pause(self, desc: Descriptor, error: OciError, delay: float) -> None:
        self._tell(Retrying(str(desc.digest), error.message, delay))
        if self.stop.wait(delay):
            raise _Stopped

    def _transfer(self, desc: Descriptor, progress: _Progress) -> Literal["copied", "skipped"]:
        if not isinstance(self._dst, Resumer):
            self._tell(Started(desc))
            with self._src.fetch(desc) as stream:
                self._dst.push(desc, CountingReader(stream, progress))
            return "copied"
        with self._dst.resume(desc) as partial_push:
            if partial_push is None:
                return "skipped"
            self._tell(Started(desc, partial_push.offset))
            with self._src.fetch(desc, offset=partial_push.offset) as stream:
                partial_push.push(CountingReader(stream, progress))
        return "copied"

    def _tell(self, event: Event) -> None:
        """Tell the listener, unless the copy has failed or was interrupted: then it listens no more."""
        if self.stop.is_set():
            raise _Stopped
        self._on_event(event)


class _Progress:
    """Counts how far one transfer is, and tells it; so what goes on while another one fails is ended."""

    def __init__(self, desc: Descriptor, tell: OnEvent) -> None:
        self._desc = desc
        self._tell = tell
        self.moved = 0

    def __call__(self, count: int) -> None:
        self.moved += count
        self._tell(Advanced(self._desc, count))


class _Stopped(Exception):
    """Another transfer failed, so this one has no use any more."""
