"""The plan as a file: committed, reviewed, replayed. The same plan is always the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ocitool import strictjson
from ocitool.digest import Digest
from ocitool.errors import Conflict, InvalidContent, OciError
from ocitool.mirror.config import Options
from ocitool.mirror.items import Item
from ocitool.mirror.naming import Target
from ocitool.mirror.plans import Pin, Plan
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocitool.mirror.plans import Image, Work

VERSION: Final = 1
MAX_BYTES: Final = 256 << 20
_SPARSE: Final = ("auto", "always", "never")


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file pins.

    Attributes:
        file: the digest of the mirror file that it was made from.
        items: the images, sorted by target.
        pins: what each of them is.
    """

    file: str
    items: tuple[Item, ...]
    pins: Mapping[Target, Pin]

    def check(self, raw: bytes) -> None:
        """Make sure that a mirror file is the one that was planned.

        Raises:
            Conflict: it is another one.
        """
        if self.file != str(Digest.of(raw)):
            raise Conflict(
                "the mirror file has changed since the plan was made", hint="make and review a new plan"
            )


def dump(plan: Plan, raw: bytes) -> bytes:
    """A plan as JSON; `raw` is the mirror file that it was made from."""
    document = {
        "version": VERSION,
        "file": str(Digest.of(raw)),
        "totals": totals(plan),
        "images": [_image(image) for image in plan.images],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def totals(plan: Plan) -> dict[str, Any]:
    """What a plan costs: per source host pulls, blobs and bytes; per destination what is written."""
    sources: dict[str, dict[str, int]] = {}
    destinations: dict[str, dict[str, int]] = {}
    pulled: set[tuple[str, Digest]] = set()
    for image in plan.images:
        work = image.work
        source = sources.setdefault(image.source.registry, {"pulls": 0, "blobs": 0, "bytes": 0})
        new = {(image.source.registry, digest) for digest in work.pulls} - pulled
        pulled |= new
        source["pulls"] += len(new)
        source["blobs"] += len(work.blobs)
        source["bytes"] += work.size
        written = destinations.setdefault(image.target.host, {"manifests": 0, "blobs": 0, "mounts": 0})
        written["manifests"] += len(work.manifests)
        written["blobs"] += len(work.blobs)
        written["mounts"] += len(work.mounts)
    result: dict[str, Any] = {
        "images": len(plan.images),
        "unchanged": sum(image.unchanged for image in plan.images),
        "sources": dict(sorted(sources.items())),
        "destinations": dict(sorted(destinations.items())),
    }
    if not all(image.work.known for image in plan.images):
        result["atLeast"] = True
    return result


def _image(image: Image) -> dict[str, Any]:
    result: dict[str, Any] = {
        "source": str(image.source),
        "place": image.target.place,
        "name": image.target.name,
        "root": _plain(image.pin.root),
        "unchanged": image.unchanged,
    }
    if image.before:
        result["before"] = str(image.before)
    options = image.item.options
    if options.platforms:
        result["platforms"] = [str(platform) for platform in options.platforms]
        result["sparse"] = options.sparse
    if image.pin.referrers:
        result["referrers"] = {
            str(subject): [desc.to_json() for desc in found]
            for subject, found in sorted(image.pin.referrers.items())
        }
    if image.pin.digest_tags:
        result["digestTags"] = {tag: _plain(desc) for tag, desc in sorted(image.pin.digest_tags.items())}
    if not image.unchanged:
        result["work"] = _work(image.work)
    return result


def _work(work: Work) -> dict[str, Any]:
    if not work.known:
        return {"known": False}
    parts = {"manifests": work.manifests, "blobs": work.blobs, "mounts": work.mounts}
    listed = {name: [_plain(desc) for desc in found] for name, found in parts.items() if found}
    return {**listed, "pulls": len(work.pulls), "bytes": work.size}


def _plain(desc: Descriptor) -> dict[str, Any]:
    return {"mediaType": desc.media_type, "digest": str(desc.digest), "size": desc.size}


def load(raw: bytes, what: str = "lock file") -> Lock:
    """Read a lock file.

    Raises:
        InvalidContent: it is none, or one of a version that is not known.
    """
    fields = strictjson.load_object(raw, what)
    if fields.get("version") != VERSION:
        raise InvalidContent(f"{what} has version {fields.get('version')!r:.40}; {VERSION} is known")
    images = fields.get("images")
    if not isinstance(images, list) or not isinstance(fields.get("file"), str):
        raise InvalidContent(f"{what} lacks `file` or `images`")
    items, pins = [], {}
    for number, entry in enumerate(images):
        where = f"images[{number}] of {what}"
        if not isinstance(entry, dict):
            raise InvalidContent(f"{where} is not an object")
        try:
            item, pin = _item(entry), _pin(entry, where)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidContent(f"{where} is not what a plan says of an image") from error
        except OciError as error:
            raise InvalidContent(f"{where}: {error.message}") from error
        if item.target in pins:
            raise InvalidContent(f"{what} has {item.target} twice")
        items.append(item)
        pins[item.target] = pin
    return Lock(fields["file"], tuple(items), pins)


def _item(entry: dict[str, Any]) -> Item:
    sparse = entry.get("sparse", "auto")
    if sparse not in _SPARSE or not all(isinstance(entry[key], str) for key in ("place", "name")):
        raise ValueError(sparse)
    options = Options(
        platforms=tuple(Platform.parse(text) for text in entry.get("platforms", ())), sparse=sparse
    )
    return Item(Reference.parse(entry["source"]), Target(entry["place"], entry["name"]), options)


def _pin(entry: dict[str, Any], what: str) -> Pin:
    return Pin(
        Descriptor.from_json(entry["root"], f"root of {what}"),
        {
            Digest.parse(subject): _descriptors(found, f"referrers of {what}")
            for subject, found in entry.get("referrers", {}).items()
        },
        {
            tag: Descriptor.from_json(desc, f"digestTags of {what}")
            for tag, desc in entry.get("digestTags", {}).items()
        },
    )


def _descriptors(found: Iterable[Any], what: str) -> tuple[Descriptor, ...]:
    return tuple(Descriptor.from_json(desc, what) for desc in found)
