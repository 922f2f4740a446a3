"""The deep check of any location."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ocitool.cli.options import format_option, jobs_option, with_session

if TYPE_CHECKING:
    from ocitool.checking import Fault
    from ocitool.content import Source, Store
    from ocitool.locations import Location, Session
    from ocitool.model import Descriptor


@click.command(short_help="Read everything of an image and list its faults.")
@click.argument("location")
@click.option("--repair-from", metavar="LOCATION", help="Fetch what is faulty from here.")
@click.option("--shallow", is_flag=True, help="Ask whether blobs are there, instead of reading them.")
@click.option("--sparse", is_flag=True, help="Platforms that an index lists need not be there.")
@jobs_option
@format_option
@with_session
def check(
    session: Session,
    location: str,
    *,
    repair_from: str | None,
    shallow: bool,
    sparse: bool,
    jobs: int,
    output: str,
) -> int:
    """Check an image, or all that a place holds, down to every byte; list every fault by its path.

    Walks from names over indexes, manifests, referrers to blobs. `ocitool store check` looks at the files
    of a layout besides.
    """
    from ocitool import console
    from ocitool.checking import check as check_source
    from ocitool.checking import repair
    from ocitool.errors import IntegrityError
    from ocitool.locations import Location

    where = Location.parse(location)
    store = _repairable(session, where) if repair_from else None
    source = store or session.source(where)
    report = check_source(
        source, _roots(source, where), deep=not shallow, sparse=sparse, jobs=jobs, on_event=session.on_event
    )
    left = report.faults
    if store and repair_from and left:
        origin = session.source(Location.parse(repair_from))
        left = repair(store, report, origin, jobs=jobs, on_event=session.on_event)
    if output == "json":
        console.result_json(
            {"sound": len(report.sound), "faults": [_fault(one, left) for one in report.faults]}
        )
    else:
        for fault in report.faults:
            console.result(f"{fault} (repaired)" if _is_repaired(fault, left) else str(fault))
    if repair_from:
        for fault in left:
            console.say(f"can't be repaired: {fault}")
    repaired = f", {len(left)} after the repair" if repair_from else ""
    console.say(f"pieces of content: {len(report.sound)} sound, {len(report.faults)} faulty{repaired}")
    return IntegrityError.exit_code if left else 0


def _fault(fault: Fault, left: list[Fault]) -> dict[str, Any]:
    desc = fault.node.descriptor
    return {
        "path": list(fault.node.path),
        "mediaType": desc.media_type,
        "digest": str(desc.digest),
        "size": desc.size,
        "fault": fault.error.message,
        "repaired": _is_repaired(fault, left),
    }


def _is_repaired(fault: Fault, left: list[Fault]) -> bool:
    return all(one.node.descriptor.digest != fault.node.descriptor.digest for one in left)


def _repairable(session: Session, location: Location) -> Store:
    """A store that replaces what is damaged."""
    from ocitool.layout import LayoutStore
    from ocitool.locations import Kind

    if location.kind is Kind.LAYOUT:
        return LayoutStore(location.path, create=False, verify=True)
    if location.kind is Kind.STORE:
        return LayoutStore(session.local.path, create=False, verify=True)
    if location.kind is Kind.REGISTRY:
        return session.store(location)
    raise click.UsageError(
        f"{location} can't be repaired in place: make it again, or, if it is a bundle,"
        " use `bundle verify --repair-from`"
    )


def _roots(source: Source, location: Location) -> dict[str, Descriptor]:
    """What to check: the image that was named, or everything."""
    from ocitool.bundle.holding import images_of
    from ocitool.locations import Kind

    named = location.ref or (location.reference and (location.reference.tag or location.reference.digest))
    if named:
        return {str(location): source.resolve(location.name)}
    name = location.reference.name if location.kind is Kind.REGISTRY and location.reference else ""
    return {str(image): image.root for image in images_of(source, name)}


COMMANDS = (check,)
