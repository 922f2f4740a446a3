"""Carrying a plan out: every image on its own, so that one that fails does not stop the others."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from ocitool.content import Resumer
from ocitool.errors import OciError, RegistryError
from ocitool.events import Event, Finished, Noted, OnEvent, ignore
from ocitool.mirror.neighbours import Deliveries, Neighbourly
from ocitool.reference import is_digest
from ocitool.transfer import copy_graph
from ocitool.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.content import Store
    from ocitool.digest import Digest
    from ocitool.mirror.items import Failure, Stores
    from ocitool.mirror.naming import Target
    from ocitool.mirror.planning import Planner
    from ocitool.mirror.plans import Image, Plan
    from ocitool.mirror.reading import Meter
    from ocitool.model import Descriptor

Outcome = Literal["copied", "unchanged", "failed"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one image.

    Attributes:
        image: as it was planned.
        outcome: copied, unchanged or failed.
        digest: what the target's name stands for now, or None.
        moved: bytes that were pushed.
        mounted: blobs that were taken over from a neighbour.
        notes: what a person should know of it.
        error: why it failed, or None.
    """

    image: Image
    outcome: Outcome
    digest: Digest | None = None
    moved: int = 0
    mounted: int = 0
    notes: tuple[str, ...] = ()
    error: OciError | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a plan.

    Attributes:
        results: of every image, sorted by target.
        failures: what could not even be planned.
        pulls: manifests that this run read from each host.
    """

    results: tuple[Result, ...]
    failures: tuple[Failure, ...]
    pulls: dict[str, int]

    @property
    def failed(self) -> int:
        """How much failed."""
        return len(self.failures) + sum(result.outcome == "failed" for result in self.results)

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return not self.failures and all(result.outcome == "unchanged" for result in self.results)


class Applier:
    """Carries plans out."""

    def __init__(
        self, stores: Stores, planner: Planner, meter: Meter, *, jobs: int = 4, on_event: OnEvent = ignore
    ) -> None:
        self._stores = stores
        self._planner = planner
        self._meter = meter
        self._jobs = jobs
        self._on_event = on_event
        self._deliveries = Deliveries()
        self._stop = threading.Event()
        self._strict_hosts: set[str] = set()
        self._done: dict[Target, Result] = {}

    def apply(self, plan: Plan) -> Run:
        """Do what a plan says; the images come in its order, a few at a time."""
        self._done.clear()
        with Workers(self._jobs, self._stop) as workers:
            workers.each(self._each, plan.images)
        return self.so_far(plan)

    def so_far(self, plan: Plan) -> Run:
        """What has become of a plan by now, as where it was interrupted: what is not done has failed."""
        done = dict(self._done)
        results = [done.get(image.target) or _not_done(image) for image in plan.images]
        return Run(tuple(results), plan.failures, dict(sorted(self._meter.pulls.items())))

    def _each(self, image: Image) -> None:
        self._done[image.target] = self._image(image)

    def _image(self, image: Image) -> Result:
        said = notes(image)
        if image.unchanged:
            return Result(image, "unchanged", image.before, notes=tuple(said))
        tally = _Tally(self._on_event, self._stop)
        try:
            written = self._copy(image, tally, said)
        except OciError as error:
            error.add_note(f"while copying {image.source} to {image.target}")
            return Result(image, "failed", None, tally.moved, tally.mounted, tuple(said), error)
        return Result(image, "copied", written.digest, tally.moved, tally.mounted, tuple(said))

    def _copy(self, image: Image, tally: _Tally, said: list[str]) -> Descriptor:
        store = self._stores.store(image.target.place)
        reading = self._planner.reading(image.item, store)
        reading.referrers_of = image.pin.referrers
        if not isinstance(store, Resumer):  # a layout has every blob once anyway
            store = self._neighbourly(image, store)
            tally.store, reading.on_begin, reading.on_lost = store, store.begin, store.lost
        # Those that were planned are what the reading shows, which may be none.
        copied = partial(copy_graph, reading, store, referrers=True, on_event=tally)
        # Before the image's own name: whoever sees the name finds the signatures as well.
        for tag, desc in image.pin.digest_tags.items():
            copied(desc, to=image.target.beside(tag))
        return self._root(image, copied, said)

    def _neighbourly(self, image: Image, inner: Store) -> Neighbourly:
        store = Neighbourly(inner, image.target.place, image.target.host, self._deliveries)
        work = image.work
        store.missing = frozenset(
            desc.digest for desc in (*work.blobs, *work.mounts, *work.shared, *work.manifests)
        )
        named = () if is_digest(image.target.name) else (image.pin.root,)
        store.named = frozenset(desc.digest for desc in (*named, *image.pin.digest_tags.values()))
        return store

    def _root(self, image: Image, copied: Callable[..., Descriptor], said: list[str]) -> Descriptor:
        """Copy the image itself: sparse where that is wanted and the destination takes it."""
        root, name, host = image.pin.root, image.target.name, image.target.host
        if not image.left_out:
            return copied(root, to=name)
        sparse = image.item.options.sparse
        if sparse == "always" or (sparse == "auto" and host not in self._strict_hosts):
            try:
                return copied(root, to=name, platforms=image.selection(sparse=True))
            except RegistryError as error:
                if sparse == "always" or not error.refuses_sparse:
                    raise
                self._strict_hosts.add(host)
        written = copied(root, to=name, platforms=image.selection(sparse=False))
        note = f"{image.target} has a new, smaller index {written.digest} instead of {root.digest}"
        if sparse == "auto":
            note += f", because {host} takes no index whose manifests are not all there"
        said.append(note)
        self._on_event(Noted(note))
        return written


def _not_done(image: Image) -> Result:
    if image.unchanged:
        return Result(image, "unchanged", image.before, notes=tuple(notes(image)))
    error = OciError("the run ended before this image was done", hint="the next run goes on from here")
    return Result(image, "failed", None, notes=tuple(notes(image)), error=error)


class _Tally:
    """Counts what one image moves, passes events on, and ends the copy when the run is interrupted."""

    def __init__(self, on_event: OnEvent, stop: threading.Event) -> None:
        self._on_event = on_event
        self._stop = stop
        self._lock = threading.Lock()
        self.moved = 0
        self.store: Neighbourly | None = None

    @property
    def mounted(self) -> int:
        """How many blobs were taken over from neighbours."""
        return self.store.mounted if self.store else 0

    def __call__(self, event: Event, /) -> None:
        if self._stop.is_set():
            raise _Interrupted
        if isinstance(event, Finished):
            with self._lock:
                self.moved += event.descriptor.size if event.how == "copied" else 0
        self._on_event(event)


class _Interrupted(Exception):
    """The run has been interrupted."""


def notes(image: Image) -> list[str]:
    """What a person should know of an image before it is copied."""
    result = []
    if image.moved:
        what = f"is {image.moved} by now" if image.moved != "nothing" else "is gone from its source"
        result.append(f"{image.source} {what}; the plan's {image.pin.root.digest} was taken")
    if image.lacks:
        result.append(f"{image.source} has no {', '.join(map(str, image.lacks))}")
    return result
