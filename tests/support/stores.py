"""Small honest stores for tests, and the images that they hold.

Each is a `MemoryStore` that does one more thing: writes down what it was asked, fails as it was told, keeps
what it got of an interrupted push, or takes blobs over from a neighbour.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ocitool import mediatypes
from ocitool.errors import IntegrityError
from ocitool.memory import MemoryStore
from ocitool.model import Descriptor
from ocitool.platforms import Platform
from ocitool.streams import Reader, VerifiedReader, chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ocitool.content import Partial, Source
    from ocitool.digest import Digest


def put(store: MemoryStore, media_type: str, content: bytes, **more: Any) -> Descriptor:
    """Add content to a store; `more` is what its descriptor says besides."""
    desc = Descriptor.of(media_type, content)
    store.push(desc, io.BytesIO(content))
    return Descriptor(desc.media_type, desc.digest, desc.size, **more)


def put_json(store: MemoryStore, media_type: str, document: dict[str, Any], **more: Any) -> Descriptor:
    """Add a JSON document to a store."""
    return put(store, media_type, json.dumps(document).encode(), **more)


def put_image(
    store: MemoryStore,
    platform: str = "linux/amd64",
    layers: Iterable[bytes | Descriptor] = (b"layer one", b"layer two"),
    *,
    media_type: str = mediatypes.OCI_MANIFEST,
    layer_type: str = mediatypes.OCI_LAYER_GZIP,
    fields: dict[str, Any] | None = None,
    marked: bool = False,
) -> Descriptor:
    """Add an image with its configuration and layers to a store.

    `fields` are more of the manifest's; where it is `marked`, its descriptor names its platform too.
    """
    os_name, architecture, *variant = platform.split("/")
    config = {
        "os": os_name,
        "architecture": architecture,
        "variant": "".join(variant),
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    descs = [layer if isinstance(layer, Descriptor) else put(store, layer_type, layer) for layer in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": put_json(store, mediatypes.OCI_CONFIG, config).to_json(),
        "layers": [desc.to_json() for desc in descs],
        **(fields or {}),
    }
    return put_json(store, media_type, manifest, platform=Platform.parse(platform) if marked else None)


def put_index(
    store: MemoryStore,
    entries: Iterable[Descriptor],
    *,
    media_type: str = mediatypes.OCI_INDEX,
    fields: dict[str, Any] | None = None,
    **more: Any,
) -> Descriptor:
    """Add an index to a store; `fields` are more of its own."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [entry.to_json() for entry in entries],
        **(fields or {}),
    }
    return put_json(store, media_type, document, **more)


def put_artifact(
    store: MemoryStore, subject: Descriptor, kind: str = "application/vnd.test+type"
) -> Descriptor:
    """Add an artifact that refers to a manifest."""
    empty = put(store, mediatypes.OCI_EMPTY, b"{}")
    blob = put(store, "application/vnd.test.blob", f"about {subject.digest} as {kind}".encode())
    return put_json(
        store,
        mediatypes.OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "artifactType": kind,
            "config": empty.to_json(),
            "layers": [blob.to_json()],
            "subject": subject.to_json(),
        },
    )


class RecordingStore(MemoryStore):
    """Writes down every question and every change, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def asked(self, verb: str) -> list[str]:
        """What one verb was called with."""
        return [name for called, name in self.calls if called == verb]

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        self.calls.append(("fetch", str(desc.digest)))
        with super().fetch(desc, offset=offset) as reader:
            yield reader

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        super().push(desc, stream)
        self.calls.append(("push", str(desc.digest)))

    def tag(self, desc: Descriptor, ref: str, /) -> None:
        super().tag(desc, ref)
        self.calls.append(("tag", ref))


class Listless:
    """A source that keeps no list of referrers."""

    def __init__(self, store: MemoryStore) -> None:
        self.resolve = store.resolve
        self.fetch = store.fetch


class FlakyStore(RecordingStore):
    """Fails, or lies, when content is fetched: each time with the next of its faults, then no more."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: defaultdict[Digest, deque[Callable[[bytes], Reader]]] = defaultdict(deque)

    def plan(self, desc: Descriptor, *faults: Callable[[bytes], Reader]) -> None:
        """Say what the next fetches of some content read from instead."""
        self.faults[desc.digest].extend(faults)

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        with super().fetch(desc, offset=offset) as reader:
            faults = self.faults[desc.digest]
            yield faults.popleft()(reader.read()) if faults else reader


def breaks(error: BaseException, after: int) -> Callable[[bytes], Reader]:
    """A fault: so many bytes arrive, then an error is raised."""

    class Breaking(io.BytesIO):
        def read(self, n: int | None = -1, /) -> bytes:
            data = super().read(n)
            if not data:
                raise error
            return data

    return lambda content: Breaking(content[:after])


def lies(content: bytes) -> Callable[[bytes], Reader]:
    """A fault: other bytes arrive."""
    return lambda _: io.BytesIO(content)


class ResumingStore(RecordingStore):
    """Keeps what it got of an interrupted push."""

    def __init__(self) -> None:
        super().__init__()
        self.partials: dict[Digest, bytes] = {}

    @contextmanager
    def resume(self, desc: Descriptor, /) -> Iterator[Partial | None]:
        yield None if self.exists(desc) else _Partial(self, desc)


class _Partial:
    def __init__(self, store: ResumingStore, desc: Descriptor) -> None:
        self._store = store
        self._desc = desc

    @property
    def offset(self) -> int:
        return len(self._store.partials.get(self._desc.digest, b""))

    def push(self, rest: Reader, /) -> None:
        partials, digest = self._store.partials, self._desc.digest
        held = partials.get(digest, b"")
        try:
            for chunk in chunks(VerifiedReader(rest, digest, self._desc.size, prefix=held), 1):
                partials[digest] = partials.get(digest, b"") + chunk
        except IntegrityError:
            del partials[digest]
            raise
        self._store.push(self._desc, io.BytesIO(partials.pop(digest)))


class MountingStore(RecordingStore):
    """Takes blobs over from the stores that it knows as neighbours."""

    def __init__(self, *neighbours: MemoryStore) -> None:
        super().__init__()
        self._neighbours = neighbours

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        if not any(source is neighbour and neighbour.exists(desc) for neighbour in self._neighbours):
            return False
        with source.fetch(desc) as reader:
            MemoryStore.push(self, desc, reader)
        self.calls.append(("mount", str(desc.digest)))
        return True
