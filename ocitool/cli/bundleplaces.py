"""What the arguments of `ocitool bundle` stand for: images, bundles, inventories, the far side."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ocitool.bundle import BundleSource, Inventory, Item
    from ocitool.bundle.application import Destination
    from ocitool.bundle.holding import Holding
    from ocitool.content import Store
    from ocitool.locations import Session

STREAM: Final = "-"
"""The name of standard input and standard output."""


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file that are neither empty nor comments."""
    from ocitool.bundle.files import translated

    with translated(str(path)):
        text = path.read_text()
    for line in text.splitlines():
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield stripped


def items(session: Session, text: str) -> Iterator[Item]:
    """What a location stands for: one image, or all that a file or directory holds."""
    from ocitool.bundle import Item
    from ocitool.content import Lister
    from ocitool.locations import Kind, Location
    from ocitool.reference import is_digest

    location = Location.parse(text)
    source = session.source(location)
    if location.kind in {Kind.REGISTRY, Kind.STORE}:
        reference = location.reference
        assert reference is not None  # noqa: S101 - both kinds have one
        tag = reference.tag or ("" if reference.digest else location.name.rpartition(":")[2])
        yield Item(source, location.name, reference.name, tag)
    elif location.ref or not isinstance(source, Lister) or not list(source.tags()):
        root = source.resolve(location.ref)
        yield Item.called(source, str(root.digest), "" if is_digest(location.ref) else location.ref)
    else:
        for name in source.tags():
            yield Item.called(source, name, name)


@contextmanager
def opened(path: Path, key: Path | None = None) -> Iterator[BundleSource]:
    """A bundle, its signature checked where a key is given."""
    from ocitool.bundle import BundleFile, BundleSource
    from ocitool.bundle.signing import check_signature

    with ExitStack() as stack:
        stream = str(path) == STREAM
        file = BundleFile.spooled(sys.stdin.buffer) if stream else BundleFile.open(path)
        found = BundleSource(stack.enter_context(file))
        if key:
            check_signature(found, key)
        yield found


def _json(path: Path) -> bytes:
    """What a file holds if that is a JSON object; b"" for a bundle, whose parts need not be such a file."""
    from ocitool.bundle.files import translated
    from ocitool.mirror.lockfile import MAX_BYTES

    if not path.is_file():
        return b""
    with translated(str(path)), path.open("rb") as file:
        start = file.read(1)
        return start + file.read(MAX_BYTES) if start == b"{" else b""


def inventory_file(path: Path) -> Inventory:
    """The inventory in a JSON file, or that of a bundle."""
    from ocitool.bundle import Inventory

    if raw := _json(path):
        return Inventory.parse(raw, str(path))
    with opened(path) as found:
        return found.inventory


def brought(session: Session, path: Path, jobs: int) -> Inventory:
    """What a bundle or a mirror's lock file has brought to the far side."""
    from ocitool.strictjson import load_object

    raw = _json(path)
    if raw and "file" in load_object(raw, str(path)):
        return _locked(session, raw, str(path), jobs)
    return inventory_file(path)


def _locked(session: Session, raw: bytes, what: str, jobs: int) -> Inventory:
    """What the images of a lock file are made of; their manifests are read where they come from."""
    from ocitool.bundle import Inventory, Item, gather
    from ocitool.mirror.lockfile import load
    from ocitool.selection import Selection

    lock = load(raw, what)
    found = []
    for item in lock.items:
        pin = lock.pins[item.target]
        root = pin.root
        source = session.client.repository(item.source)
        options = item.options
        selection = Selection(options.platforms, sparse=options.sparse != "never")
        gathered = gather(
            [Item(source, str(root.digest), item.source.name, "")],
            platforms=selection,
            referrers=False,
            jobs=jobs,
        ).inventory
        # What belongs to the image is what did when the file was written.
        beside = gather(
            [
                Item(source, str(desc.digest), item.source.name, "")
                for desc in (*pin.referring, *pin.digest_tags.values())
            ],
            referrers=False,
            jobs=jobs,
        ).inventory
        # Whether the mirror kept the index, or made a new one, depended on the registry.
        unsure = {root.digest} if options.platforms and options.sparse == "auto" else set()
        content = {digest: entry for digest, entry in gathered.content.items() if digest not in unsure}
        found += [Inventory(content=content), beside]
    return Inventory.union(found)


def holdings(session: Session, text: str) -> Iterator[Holding]:
    """The stores of a place, with every image in them."""
    from ocitool.bundle.holding import Holding, images_of
    from ocitool.locations import Kind, Location
    from ocitool.reference import Reference

    registry = text.removeprefix("docker://")
    if registry.endswith("/") and "/" not in registry[:-1]:
        for name in session.client.catalog(registry[:-1]):
            reference = Reference(registry[:-1], name)
            repository = session.client.repository(reference)
            yield Holding(repository, images_of(repository, reference.name), reference.name)
        return
    if text == "store:":
        yield Holding(session.local, images_of(session.local))
        return
    location = Location.parse(text)
    source = session.source(location)
    name = location.reference.name if location.kind is Kind.REGISTRY and location.reference else ""
    yield Holding(source, images_of(source, name), name)


def destination_of(session: Session, text: str, rules: tuple[str, ...]) -> Destination:
    """The far side that DESTINATION and --rename describe."""
    from ocitool.bundle.application import OneStore, RegistryDestination, Renaming
    from ocitool.locations import Kind, Location
    from ocitool.reference import Reference

    pairs = dict(_rule(rule) for rule in rules)
    if text == "store:":
        return OneStore(session.local, Renaming(pairs))
    if text.startswith(("oci:", "/", "./", "../")):
        location = Location.parse(text)
        if location.kind is not Kind.LAYOUT or location.ref:
            raise click.UsageError(f"a bundle is applied to a registry or a layout, and not to {text}")
        return OneStore(session.store(location), Renaming(pairs))
    registry, _, prefix = text.removeprefix("docker://").strip("/").partition("/")

    def open_repository(name: str) -> Store:
        return session.client.repository(Reference(registry, name.removeprefix(registry + "/")))

    open_repository(f"{registry}/{prefix or 'x'}")  # says what is wrong with the name, and sends nothing
    return RegistryDestination(open_repository, registry, prefix, Renaming(pairs))


def _rule(text: str) -> tuple[str, str]:
    start, equals, new = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is no rule FROM=TO", param_hint="--rename")
    return start, new
