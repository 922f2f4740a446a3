"""From rules to images: which tags of which repositories go where."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ocitool.content import Lister, Source, Store
from ocitool.digest import Digest
from ocitool.digesttags import is_digest_tag
from ocitool.errors import Conflict, OciError, Unsupported
from ocitool.mirror.once import Once
from ocitool.reference import Reference, is_digest
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ocitool.mirror.config import MirrorFile, Options, Rule
    from ocitool.mirror.naming import Target


@dataclass(frozen=True, slots=True)
class Stores:
    """How to reach what a mirror file names; the mirror itself knows nothing of connections.

    Attributes:
        source: a repository to read from.
        store: a place to write to: `registry/repository`, or `oci:DIR`.
        catalog: the repositories of a registry.
    """

    source: Callable[[Reference], Source]
    store: Callable[[str], Store]
    catalog: Callable[[str], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Item:
    """One image that is wanted: from where, to where, and how."""

    source: Reference
    target: Target
    options: Options


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be done, and why."""

    what: str
    error: OciError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mirror file comes to, now.

    Attributes:
        items: the images, sorted by target.
        failures: rules that could not be followed.
    """

    items: tuple[Item, ...]
    failures: tuple[Failure, ...]


def expand(file: MirrorFile, stores: Stores, listings: Listings) -> Wanted:
    """Find the images that a mirror file means; registries are asked for lists of names alone."""
    items: dict[Target, Item] = {}
    failures: list[Failure] = []
    whole = [rule.source for rule in file.rules if rule.kind == "repository" and rule.tags.listed]
    listings.ask_ahead([source for source in whole if isinstance(source, Reference)], stores)
    for rule in file.rules:
        for found in _guarded(rule.path, _sources(rule, stores, listings)):
            if isinstance(found, Failure):
                failures.append(found)
                continue
            if any(text in pattern for pattern in file.skip for text in (found.name, str(found))):
                continue
            try:
                item = _item(rule, found)
                known = items.setdefault(item.target, item)
                if known.source != item.source:
                    raise Conflict(
                        f"{item.target} would be both {known.source} and {item.source}",
                        hint="give one of them another name with `to`",
                    )
            except OciError as error:
                failures.append(Failure(f"{rule.path}: {found}", error))
    return Wanted(tuple(items[target] for target in sorted(items)), tuple(failures))


def _item(rule: Rule, source: Reference) -> Item:
    assert rule.options.to is not None  # noqa: S101 - checked when the file was read
    return Item(source, rule.options.to.target(source), rule.options)


def _guarded(path: str, sources: Iterator[Reference | Failure]) -> Iterator[Reference | Failure]:
    """One rule that fails does not end the others."""
    try:
        yield from sources
    except OciError as error:
        yield Failure(path, error)


def _sources(rule: Rule, stores: Stores, listings: Listings) -> Iterator[Reference | Failure]:
    if isinstance(rule.source, str):
        chosen = [
            Reference(rule.source, name) for name in rule.repositories.choose(stores.catalog(rule.source))
        ]
        if rule.tags.listed:
            listings.ask_ahead(chosen, stores)
        for repository in chosen:
            yield from _guarded(
                f"{rule.path}: {repository.name}", _tagged(rule, repository, stores, listings)
            )
    elif rule.kind == "image":
        image = rule.source
        yield image if image.tag or image.digest else replace(image, tag=image.ref)
    else:
        yield from _tagged(rule, rule.source, stores, listings)


def _tagged(rule: Rule, repository: Reference, stores: Stores, listings: Listings) -> Iterator[Reference]:
    tags = listings.tags(repository, stores.source(repository)).names if rule.tags.listed else []
    for name in rule.tags.choose(tags):
        yield (
            replace(repository, digest=Digest.parse(name))
            if is_digest(name)
            else replace(repository, tag=name)
        )


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of a repository: all, and those that belong to a manifest."""

    names: list[str]
    of_digests: frozenset[str]


class Listings:
    """The tags of repositories, each asked for once in a job; `jobs` of them at once."""

    def __init__(self, *, jobs: int = JOBS) -> None:
        self._found = Once[str, Tags]()
        self._jobs = jobs

    def ask_ahead(self, repositories: Iterable[Reference], stores: Stores) -> None:
        """Ask for the tags of several repositories at once. Whoever needs them finds them, or the failure."""

        def one(repository: Reference) -> None:
            with suppress(OciError):
                self.tags(repository, stores.source(repository))

        each(one, repositories, jobs=self._jobs)

    def tags(self, reference: Reference, source: Source) -> Tags:
        """The tags of a repository.

        Raises:
            Unsupported: they can't be listed.
        """
        return self._found.get(reference.name, lambda: _listed(source, reference.name))


def _listed(source: Source, name: str) -> Tags:
    if not isinstance(source, Lister):
        raise Unsupported(f"the tags of {name} can't be listed")
    names = list(source.tags())
    return Tags(names, frozenset(filter(is_digest_tag, names)))
