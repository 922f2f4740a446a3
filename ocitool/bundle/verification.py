"""Whether a bundle is whole: its structure, every digest, and that every name reaches only what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocitool import limits
from ocitool.bundle.source import INDEX_JSON, OCI_LAYOUT, BundleSource
from ocitool.checking import check, read_through
from ocitool.errors import IntegrityError, NotFound, OciError
from ocitool.events import Advanced, Finished, OnEvent, Started, ignore
from ocitool.layout.index import blob_path
from ocitool.selection import Selection, select
from ocitool.strictjson import load_object
from ocitool.workers import JOBS, each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.digest import Digest
    from ocitool.model import Descriptor


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a bundle.

    Attributes:
        where: a member's name, or the path from an image's name to its content.
        message: what is wrong with it.
    """

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def verify(bundle: BundleSource, *, jobs: int = JOBS, on_event: OnEvent = ignore) -> list[Problem]:
    """Read all of a bundle and list everything that is wrong with it.

    Args:
        bundle: the bundle; what opening it checks is not checked again.
        jobs: how much is read at once.
        on_event: is told about each piece of content.
    """
    problems = [*_members(bundle)]
    roots = {str(image): image.root for image in bundle.inventory.images}
    here = bundle.inventory.content.keys()
    elsewhere = bundle.inventory.presumed.keys() | (_left_out(bundle) - here)
    report = check(bundle, roots, elsewhere=elsewhere, jobs=jobs, on_event=on_event)
    problems += [Problem(str(fault.node), fault.error.message) for fault in report.faults]
    seen = report.sound.keys() | {fault.node.descriptor.digest for fault in report.faults}
    # Content that is reached only through manifests on the far side is still what its name says.
    unseen = [entry.descriptor for digest, entry in bundle.inventory.content.items() if digest not in seen]

    def read(desc: Descriptor) -> list[Problem]:
        on_event(Started(desc))
        try:
            read_through(bundle, desc, lambda count: on_event(Advanced(desc, count)))
        except (IntegrityError, NotFound) as error:
            return [Problem(blob_path(desc.digest), error.message)]
        on_event(Finished(desc, "checked"))
        return []

    return problems + [problem for found in each(read, unseen, jobs=jobs) for problem in found]


def require_sound(bundle: BundleSource, *, jobs: int = JOBS, on_event: OnEvent = ignore) -> None:
    """Verify a bundle before it is used.

    Raises:
        IntegrityError: something is wrong with it.
    """
    problems = verify(bundle, jobs=jobs, on_event=on_event)
    if problems:
        more = f", and {len(problems) - 1} more faults" if problems[1:] else ""
        raise IntegrityError(
            f"{bundle.name} is damaged: {problems[0]}{more}",
            hint="copy it again; `ocitool bundle verify` lists every fault",
        )


def _members(bundle: BundleSource) -> Iterator[Problem]:
    """What the tar file holds is what the inventory says, no more and no less."""
    try:
        version = load_object(bundle.read(OCI_LAYOUT, limits.CONFIG_BYTES), OCI_LAYOUT)
    except OciError as error:
        yield Problem(OCI_LAYOUT, error.message)
    else:
        if version.get("imageLayoutVersion") != "1.0.0":
            yield Problem(OCI_LAYOUT, "has no imageLayoutVersion 1.0.0")
    expected = {OCI_LAYOUT, INDEX_JSON, blob_path(bundle.inventory_digest)}
    expected |= {blob_path(digest) for digest in (*bundle.signatures, *bundle.inventory.content)}
    for name in bundle.members:
        if name not in expected:
            yield Problem(name, "is not in the inventory")
    for digest in bundle.inventory.content.keys() & bundle.inventory.presumed.keys():
        yield Problem(blob_path(digest), "is in the bundle and presumed elsewhere")


def _left_out(bundle: BundleSource) -> set[Digest]:
    """What sparse indexes list and their images were chosen without."""
    left_out: set[Digest] = set()
    for image in bundle.inventory.images:
        if image.platforms:
            try:
                left_out |= select(bundle, image.root, Selection(image.platforms, sparse=True)).left_out
            except OciError:
                continue  # the walk names what is wrong with the index
    return left_out
