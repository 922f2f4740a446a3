"""Pruning: desired state, carried to its end. What no rule wants any more goes, within bounds.

Only places that a mirror file fills are looked at. What a kept name reaches stays: its manifests, what refers
to them, and the tags of signatures and the like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool.content import Deleter, Lister, Referrers, read_manifest
from ocitool.digesttags import subject_of
from ocitool.errors import Conflict, NotFound, OciError, RegistryError, Unsupported
from ocitool.mirror.items import Failure
from ocitool.mirror.reading import ask, asked
from ocitool.model import Index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.content import Store
    from ocitool.mirror.items import Stores
    from ocitool.model import Descriptor

    Named = Mapping[str, Descriptor]


@dataclass(frozen=True, slots=True)
class Doomed:
    """A name that no rule wants any more.

    Attributes:
        place: where it is.
        name: the tag.
        desc: what it names.
        reached: whether a kept name reaches that content, so that only the tag may go.
    """

    place: str
    name: str
    desc: Descriptor
    reached: bool


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What pruning would delete.

    Attributes:
        doomed: the names, sorted by place and name.
        total: how many names the places have.
        failures: places that could not be looked through; nothing is deleted there.
    """

    doomed: tuple[Doomed, ...]
    total: int
    failures: tuple[Failure, ...] = ()

    def check(self, most: str) -> None:
        """Make sure that there is no more to delete than is allowed.

        Args:
            most: a number of names, or a share of them (`5%`).

        Raises:
            Conflict: there is more.
        """
        share = most.endswith("%")
        number = int(most.rstrip("%"))
        allowed = self.total * number // 100 if share else number
        if len(self.doomed) > allowed:
            raise Conflict(
                f"pruning would delete {len(self.doomed)} of {self.total} tags; none went, because at most"
                f" {most} may",
                hint="is that right? then raise --max-delete",
            )


def plan_prune(places: Mapping[str, set[str]], stores: Stores) -> PrunePlan:
    """Find what no rule wants any more; `places` has the names that are wanted, by place."""
    doomed: list[Doomed] = []
    failures: list[Failure] = []
    total = 0
    for place, wanted in sorted(places.items()):
        try:
            store = stores.store(place)
            if not isinstance(store, Lister) or not isinstance(store, Deleter):
                raise Unsupported(f"{place} can't be pruned: its names can't be listed, or not be deleted")
            names = _names(store, store)
            doomed += _doomed(place, store, names, wanted)
            total += len(names)
        except NotFound:
            continue  # nothing has been mirrored there yet
        except OciError as error:
            failures.append(Failure(f"prune {place}", error))
    return PrunePlan(tuple(doomed), total, tuple(failures))


def _names(store: Store, lister: Lister) -> dict[str, Descriptor]:
    return {name: ask(store, name) for name in sorted(lister.tags())}


def _doomed(place: str, store: Store, names: Named, wanted: set[str]) -> Iterable[Doomed]:
    kept = {name for name in names if name in wanted}
    # Digests that are mirrored without a tag are wanted as well.
    roots = [names[name] for name in kept]
    roots += [desc for digest in wanted - kept if (desc := asked(store, digest))]
    reached = _reached(store, names, roots)
    for name, desc in names.items():
        subject_name = subject_of(name)
        if name not in kept and not (subject_name and subject_name in reached):
            yield Doomed(place, name, desc, str(desc.digest) in reached)


def _reached(store: Store, names: Named, roots: Iterable[Descriptor]) -> set[str]:
    """The digests of all manifests that the roots reach, downwards and by what refers to them."""
    by_subject: dict[str, list[Descriptor]] = {}
    for name, desc in names.items():
        if subject := subject_of(name):
            by_subject.setdefault(subject, []).append(desc)
    reached: set[str] = set()
    waiting = list(roots)
    while waiting:
        desc = waiting.pop()
        if str(desc.digest) in reached or not desc.is_manifest:
            continue
        reached.add(str(desc.digest))
        waiting += by_subject.get(str(desc.digest), [])
        if isinstance(store, Referrers):
            waiting += store.referrers(desc)
        if desc.is_index:
            try:
                index = read_manifest(store, desc)
            except NotFound:
                continue  # left out of a sparse index, or lost: it reaches nothing
            waiting += index.manifests if isinstance(index, Index) else ()
    return reached


def prune(plan: PrunePlan, stores: Stores) -> tuple[list[Doomed], list[Failure]]:
    """Delete what a plan says; returns what went, and what did not."""
    gone: list[Doomed] = []
    failures: list[Failure] = []
    for doomed in plan.doomed:
        try:
            _delete(doomed, stores)
            gone.append(doomed)
        except OciError as error:
            failures.append(Failure(f"prune {doomed.place}:{doomed.name}", error))
    return gone, failures


def _delete(doomed: Doomed, stores: Stores) -> None:
    store = stores.store(doomed.place)
    assert isinstance(store, Deleter)  # noqa: S101 - asked when it was planned
    # The name may have moved since: then it is somebody else's.
    now = asked(store, doomed.name)
    if now is None:
        return
    if now.digest != doomed.desc.digest:
        raise Conflict(f"{doomed.place}:{doomed.name} has moved to {now.digest} in the meantime, so it stays")
    if not doomed.reached:
        # All names of content that nothing kept reaches are doomed as well.
        store.delete(doomed.desc)
        return
    try:
        store.untag(doomed.name)
    except (Unsupported, RegistryError) as error:
        raise Unsupported(
            f"{doomed.place}:{doomed.name} stays: a kept name has the same content, and the registry deletes"
            " no tag alone",
        ) from error
