"""The one way that bytes move between stores, and the one thread pool.

`copy` walks the graph of descriptors under a root and moves what the destination lacks: blobs first and in
parallel, then manifests from the leaves up, the name last. So whatever the destination shows is whole.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import replace
from functools import partial
from graphlib import TopologicalSorter
from io import BytesIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

from ocitool import limits, mediatypes
from ocitool.content import Mounter, Referrers, Resumer, Source, Store, read_verified
from ocitool.errors import IntegrityError, InvalidContent, OciError, RegistryError, UnsafeContent
from ocitool.events import Advanced, Event, Finished, OnEvent, Planned, Retrying, Started, ignore
from ocitool.model import Descriptor, parse_manifest
from ocitool.reference import is_digest
from ocitool.selection import EVERYTHING, Selected, Selection, select
from ocitool.streams import CountingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Literal, Self

    from ocitool.digest import Digest

T = TypeVar("T")
R = TypeVar("R")

JOBS: Final = 4
"""How many blobs move at once; more seldom helps with one registry, and is rude to it."""

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
        referrers: copy what refers to each manifest as well (signatures, SBOMs).
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
    platforms: Selection = EVERYTHING,
    referrers: bool = False,
    jobs: int = JOBS,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """As `copy`, for a root that has been resolved already; `to` may be its digest, for no name at all."""
    selected = select(src, root, platforms)
    written = replace(selected.root, data=None)
    if is_digest(to) and to not in {str(root.digest), str(written.digest)}:
        raise IntegrityError(
            f"{written.digest} can't be written as {to}", expected=to, actual=str(written.digest)
        )
    mover = _Mover(src, dst, on_event)
    with _Workers(jobs, mover.stop) as workers:
        graph = _walk(src, selected, mover.read, workers, with_referrers=referrers)
        on_event(Planned((*graph.leaves.values(), *graph.manifests.values())))
        # The largest first, so that the last one to end is a small one.
        workers.each(mover.move, sorted(graph.leaves.values(), key=lambda leaf: leaf.size, reverse=True))
        for rank in graph.ranks():
            workers.each(lambda desc: mover.move(desc, graph.content[desc.digest]), rank)
    # A new index has another digest than the one that was asked for.
    dst.tag(written, str(written.digest) if is_digest(to) else to)
    return written


def survey(
    src: Source,
    root: Descriptor,
    *,
    platforms: Selection = EVERYTHING,
    referrers: bool = False,
    jobs: int = JOBS,
) -> Graph:
    """Find all content that `copy_graph` with the same arguments would see to, without moving any of it.

    Raises:
        OciError: as `copy`, for what is wrong with manifests.
    """
    selected = select(src, root, platforms)
    with _Workers(jobs, threading.Event()) as workers:
        return _walk(src, selected, lambda desc: read_verified(src, desc), workers, with_referrers=referrers)


def move(
    src: Source, dst: Store, descs: Iterable[Descriptor], *, jobs: int = JOBS, on_event: OnEvent = ignore
) -> None:
    """Copy content, each piece by itself and not what it names; in the given order where `jobs` is 1.

    What a descriptor carries itself (`data`) is not asked for.

    Raises:
        OciError: as `copy`.
    """
    mover = _Mover(src, dst, on_event)
    with _Workers(jobs, mover.stop) as workers:
        workers.each(mover.move, descs)


def each(work: Callable[[T], R], items: Iterable[T], *, jobs: int = JOBS) -> list[R]:
    """Do the same with every item, several at once; the first failure stops the rest and is raised.

    The work may not wait for other work that is given to `each`.
    """
    with _Workers(jobs, threading.Event()) as workers:
        return workers.each(work, items)


class Graph:
    """What a root names: leaves, and manifests with their bytes and what they name.

    One piece of content may be both, a manifest to one document and a blob to another, and then lives in
    two places in a registry.

    Attributes:
        root: where it starts: a new index where a selection makes one.
        leaves: the content that names nothing.
        manifests: the rest, the root first.
        content: the bytes of the manifests.
    """

    def __init__(self, root: Descriptor) -> None:
        self.root = root
        self.leaves: dict[Digest, Descriptor] = {}
        self.manifests: dict[Digest, Descriptor] = {}
        self.content: dict[Digest, bytes] = {}
        self._below: dict[Digest, list[Digest]] = {}

    def add(self, found: Iterable[Descriptor]) -> list[Descriptor]:
        """Take content in, each piece once; the manifests among what is new are still to be read."""
        new = []
        for desc in found:
            known = self.manifests if desc.is_manifest else self.leaves
            first = known.setdefault(desc.digest, desc)
            if first.size != desc.size or (desc.is_manifest and first.media_type != desc.media_type):
                raise InvalidContent(
                    f"{desc.digest} is named as {first.media_type} of {first.size} bytes,"
                    f" and as {desc.media_type} of {desc.size}"
                )
            if desc.is_manifest and desc.digest not in self._below:
                self._below[desc.digest] = []
                new.append(desc)
        if len(self.leaves) + len(self.manifests) > limits.GRAPH_NODES:
            raise UnsafeContent(f"more than {limits.GRAPH_NODES} pieces of content are named")
        if sum(desc.size for desc in self.manifests.values()) > limits.GRAPH_BYTES:
            raise UnsafeContent(f"manifests of more than {limits.GRAPH_BYTES} bytes together are named")
        return new

    def read(self, desc: Descriptor, raw: bytes, children: Iterable[Descriptor]) -> None:
        """Take in what a manifest turned out to be."""
        self.content[desc.digest] = raw
        self._below[desc.digest] = [child.digest for child in children if child.is_manifest]

    def ranks(self) -> Iterator[list[Descriptor]]:
        """The manifests in groups, each after the groups that hold what it names."""
        order = TopologicalSorter(self._below)
        order.prepare()
        while order.is_active():
            ready = order.get_ready()
            yield [self.manifests[digest] for digest in ready]
            order.done(*ready)

    def roots(self) -> list[Descriptor]:
        """The manifests that no other one names: the root and, where they were asked for, referrers."""
        named = {digest for below in self._below.values() for digest in below}
        return [desc for desc in self.manifests.values() if desc.digest not in named]


def _walk(
    src: Source,
    selected: Selected,
    read: Callable[[Descriptor], bytes],
    workers: _Workers,
    *,
    with_referrers: bool,
) -> Graph:
    """Read every manifest under a root, level by level, each level in parallel."""
    graph = Graph(replace(selected.root, data=None))
    level, depth = graph.add([selected.root]), 0
    while level:
        depth += 1
        if depth > limits.INDEX_NESTING:
            raise UnsafeContent(f"{selected.root.digest} is nested deeper than {limits.INDEX_NESTING} levels")
        found: list[Descriptor] = []
        for desc, raw in zip(level, workers.each(read, level), strict=True):
            # What the root leaves out may well be named again by what it keeps.
            children = _children(desc, raw, selected.left_out if desc == selected.root else ())
            graph.read(desc, raw, children)
            found += children
        if with_referrers and isinstance(src, Referrers):
            for more in workers.each(lambda desc: list(src.referrers(desc)), level):
                found += more
        level = graph.add(found)
    return graph


def _children(desc: Descriptor, raw: bytes, left_out: Collection[Digest]) -> list[Descriptor]:
    """What a manifest names and may be copied.

    image-spec, layer.md: "Implementations SHOULD NOT upload layers tagged with this media type" - the
    non-distributable ones.
    """
    return [
        child
        for child in parse_manifest(raw, desc).children
        if child.digest not in left_out and not mediatypes.is_nondistributable(child.media_type)
    ]


class _Workers:
    """The thread pool. Only work that waits for no other work is given to it.

    Its threads are daemons, which those of the standard library's pool are not: whoever interrupts waits
    for no peer that says nothing, neither here nor when the interpreter exits.
    """

    def __init__(self, jobs: int, stop: threading.Event) -> None:
        if jobs < 1:
            raise ValueError("a copy needs at least one job")
        self._stop = stop
        self._failures: list[BaseException] = []
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"ocitool-copy-{n}", daemon=True) for n in range(jobs)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for _thread in self._threads:
            self._tasks.put(None)
        # Whoever handles an error finds nothing still going on; whoever interrupts does not wait.
        if kind is None or issubclass(kind, Exception):
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while task := self._tasks.get():
            # Who waited for this task has been told of a failure, or is about to be.
            if not self._stop.is_set():
                task()

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same with every item; the first failure stops the rest and is raised."""
        futures: list[Future[R]] = []
        try:
            for item in items:
                futures.append(Future())
                self._tasks.put(partial(self._fulfil, futures[-1], work, item))
            wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            self._stop.set()
            raise
        if self._failures:
            raise self._failures[0]
        return [future.result() for future in futures]

    def _fulfil(self, future: Future[R], work: Callable[[T], R], item: T) -> None:
        try:
            future.set_result(work(item))
        except BaseException as error:  # noqa: BLE001 - `each` raises it
            # In this order, so that what is stopped by a failure never comes before it.
            self._failures.append(error)
            self._stop.set()
            future.set_exception(error)


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
