"""The one way that bytes move between stores, and the one thread pool.

`copy` walks the graph of descriptors under a root and moves what the destination lacks: blobs first and in
parallel, then manifests from the leaves up, the name last. So whatever the destination shows is whole.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from typing import TYPE_CHECKING, Final, TypeVar

from ocitool import limits, mediatypes
from ocitool.content import Mounter, Referrers, Resumer, Source, Store, read_verified
from ocitool.errors import IntegrityError, OciError, RegistryError, UnsafeContent
from ocitool.events import Advanced, Finished, OnEvent, Planned, Retrying, Started, ignore
from ocitool.model import Descriptor, parse_manifest
from ocitool.reference import is_digest
from ocitool.selection import EVERYTHING, Selected, Selection, select
from ocitool.streams import CountingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
        IntegrityError: content is not what its descriptor names, twice in a row.
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
    mover = _Mover(selected.source, dst, on_event)
    with _Workers(jobs, mover.stop) as workers:
        graph = _walk(selected, workers, with_referrers=referrers)
        on_event(Planned((*graph.leaves, *graph.manifests)))
        # The largest first, so that the last one to end is a small one.
        workers.each(mover.move, sorted(graph.leaves, key=lambda leaf: leaf.size, reverse=True))
        for rank in graph.ranks():
            workers.each(lambda desc: mover.move(desc, graph.manifests[desc]), rank)
    # A new index has another digest than the one that was asked for.
    dst.tag(selected.root, str(selected.root.digest) if is_digest(to) else to)
    return selected.root


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
        return _walk(selected, workers, with_referrers=referrers)


class Graph:
    """What a root names: leaves, and manifests with their bytes and what they name.

    Attributes:
        root: where it starts; a new descriptor where a selection makes a new index.
        leaves: the content that names nothing, in the order in which it was found.
        manifests: the others, with their bytes; the root is the first.
        children: what each manifest names and may be copied.
    """

    def __init__(self, root: Descriptor) -> None:
        self.root = root
        self.leaves: dict[Descriptor, None] = {}
        self.manifests: dict[Descriptor, bytes] = {}
        self.children: dict[Descriptor, list[Descriptor]] = {}

    def ranks(self) -> list[list[Descriptor]]:
        """The manifests in groups, each after the groups that hold what it names."""
        heights: dict[Descriptor, int] = {}

        def height(desc: Descriptor) -> int:
            if desc not in heights:
                below = [height(child) for child in self.children[desc] if child in self.manifests]
                heights[desc] = 1 + max(below, default=-1)
            return heights[desc]

        groups: list[list[Descriptor]] = [[] for _ in range(1 + max(map(height, self.manifests)))]
        for desc in self.manifests:
            groups[height(desc)].append(desc)
        return groups


def _walk(selected: Selected, workers: _Workers, *, with_referrers: bool) -> Graph:
    """Read every manifest under a root, level by level, each level in parallel."""
    src, root = selected.source, selected.root
    graph = Graph(root)
    level, seen, depth = [root], {root.digest}, 0
    while level:
        depth += 1
        if depth > limits.INDEX_NESTING or len(seen) > limits.GRAPH_NODES:
            raise UnsafeContent(
                f"{root.digest} is nested deeper than {limits.INDEX_NESTING} levels,"
                f" or names more than {limits.GRAPH_NODES} pieces of content"
            )
        found: list[Descriptor] = []
        for desc, raw in zip(level, workers.each(lambda desc: read_verified(src, desc), level), strict=True):
            graph.manifests[desc] = raw
            graph.children[desc] = children = _children(desc, raw, selected.left_out)
            found += children
        if with_referrers and isinstance(src, Referrers):
            found += [referrer for more in workers.each(src.referrers, level) for referrer in more]
        # A dict, because a manifest may name one layer twice.
        new = {desc: None for desc in found if desc.digest not in seen}
        seen.update(desc.digest for desc in new)
        level = [desc for desc in new if desc.is_manifest]
        graph.leaves.update({desc: None for desc in new if not desc.is_manifest})
    return graph


def _children(desc: Descriptor, raw: bytes, left_out: frozenset[Digest]) -> list[Descriptor]:
    """What a manifest names and may be copied; content of a type that is not known names nothing."""
    if not desc.is_manifest:
        return []
    return [
        child
        for child in parse_manifest(raw, desc).children
        if child.digest not in left_out and not mediatypes.is_nondistributable(child.media_type)
    ]


class _Workers:
    """The thread pool. Only work that waits for no other work is given to it."""

    def __init__(self, jobs: int, stop: threading.Event) -> None:
        self._pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="ocitool-copy")
        self._stop = stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever interrupts does not wait for a peer that says nothing; whoever handles an error finds
        # nothing still going on.
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(wait=not interrupted, cancel_futures=True)

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same with every item; the first failure stops the rest and is raised."""
        futures = [self._pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self._stop.set()
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]


class _Mover:
    """Moves one node at a time into the destination, and tells the listener."""

    def __init__(self, src: Source, dst: Store, on_event: OnEvent) -> None:
        self._src = src
        self._dst = dst
        self._on_event = on_event
        self.stop = threading.Event()

    def move(self, desc: Descriptor, content: bytes | None = None) -> None:
        """Copy a node, unless the destination has it; `content` is what is known of it already."""
        try:
            self._on_event(Finished(desc, self._move(desc, content)))
        except OciError as error:
            error.add_note(f"while copying {desc.media_type} {desc.digest}")
            raise

    def _move(self, desc: Descriptor, content: bytes | None) -> Literal["copied", "skipped", "mounted"]:
        if self._dst.exists(desc):
            return "skipped"
        if content is not None:
            self._on_event(Started(desc))
            self._dst.push(desc, CountingReader(BytesIO(content), self._report(desc)))
            return "copied"
        if isinstance(self._dst, Mounter) and self._dst.mount(desc, self._src):
            return "mounted"
        return self._persist(desc)

    def _persist(self, desc: Descriptor) -> Literal["copied", "skipped"]:
        """Move a blob's bytes; a transfer that got somewhere before it failed is worth another try.

        The registry's own layer repeats single requests. What it can't repeat is a body that it was
        sending, because that comes from the other side: so the whole node is repeated, here.
        """
        for attempt in range(1, _TRIES + 1):
            moved = 0

            def advance(count: int) -> None:
                nonlocal moved
                moved += count

            try:
                return self._transfer(desc, advance)
            except IntegrityError as error:
                # Once is an accident on the way; twice is what the source holds.
                if attempt > 1:
                    raise
                self._pause(desc, error, 0)
            except RegistryError as error:
                if not (error.temporary and moved) or attempt == _TRIES:
                    raise
                self._pause(desc, error, _RETRY_DELAY * 2 ** (attempt - 1))
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    def _pause(self, desc: Descriptor, error: OciError, delay: float) -> None:
        self._on_event(Retrying(str(desc.digest), error.message, delay))
        self.stop.wait(delay)

    def _transfer(self, desc: Descriptor, advance: Callable[[int], None]) -> Literal["copied", "skipped"]:
        report = self._report(desc)

        def passed(count: int) -> None:
            advance(count)
            report(count)

        if isinstance(self._dst, Resumer):
            with self._dst.resume(desc) as partial:
                if partial is None:
                    return "skipped"
                self._on_event(Started(desc, partial.offset))
                with self._src.fetch(desc, offset=partial.offset) as stream:
                    partial.push(CountingReader(stream, passed))
        else:
            self._on_event(Started(desc))
            with self._src.fetch(desc) as stream:
                self._dst.push(desc, CountingReader(stream, passed))
        return "copied"

    def _report(self, desc: Descriptor) -> Callable[[int], None]:
        def report(count: int) -> None:
            if self.stop.is_set():
                raise _Stopped
            self._on_event(Advanced(desc, count))

        return report


class _Stopped(Exception):
    """Another transfer failed, so this one has no use any more."""
