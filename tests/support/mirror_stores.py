"""A world of registries in memory, which counts what is asked of it, for tests of the mirror."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocitool import mediatypes
from ocitool.errors import RegistryError
from ocitool.memory import MemoryStore
from ocitool.mirror import Job, Limits, Lock, Settings, Shard, Stores, parse
from ocitool.model import Descriptor, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ocitool.content import Source, Store
    from ocitool.streams import Reader


class Repository(MemoryStore):
    """A repository of a registry: counts requests, mounts from its neighbours, and may be strict.

    Attributes:
        strict: refuse an index whose manifests are not all there, as the specification allows.
        full: refuse every index, for want of space.
        broken: digests whose content can't be read.
        meet: is called before the tags are told.
    """

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self.requests: Counter[str] = Counter()
        self.strict = False
        self.full = False
        self.broken: set[str] = set()
        self.meet: Callable[[], object] = lambda: None
        self._counting = threading.Lock()

    def _count(self, what: str) -> None:
        with self._counting:
            self.requests[what] += 1

    def resolve(self, ref: str, /) -> Descriptor:
        self._count("resolve")
        return super().resolve(ref)

    def exists(self, desc: Descriptor, /) -> bool:
        self._count("exists")
        return super().exists(desc)

    def referrers(self, desc: Descriptor, /, artifact_type: str = "") -> Iterable[Descriptor]:
        self._count("list")
        return super().referrers(desc, artifact_type)

    def tags(self) -> Iterable[str]:
        self._count("list")
        self.meet()
        return super().tags()

    @contextmanager
    def fetch(self, desc: Descriptor, /, *, offset: int = 0) -> Iterator[Reader]:
        self._count("pull" if desc.is_manifest else "blob")
        if str(desc.digest) in self.broken:
            raise RegistryError(f"{desc.digest} can't be read", status=500)
        with super().fetch(desc, offset=offset) as reader:
            yield reader

    def push(self, desc: Descriptor, stream: Reader, /) -> None:
        self._count("push manifest" if desc.is_manifest else "push blob")
        raw = stream.read()
        if self.full and desc.is_index:
            raise RegistryError(f"no space for {desc.digest}", method="PUT", status=507)
        if self.strict and desc.is_index:
            for child in parse_manifest(raw, desc).children:
                if not super().exists(child):
                    raise RegistryError(
                        f"{child.digest} is not there",
                        method="PUT",
                        status=404,
                        codes=("MANIFEST_BLOB_UNKNOWN",),
                    )
        super().push(desc, io.BytesIO(raw))

    def mount(self, desc: Descriptor, source: Source, /) -> bool:
        if not isinstance(source, Repository) or source.host != self.host:
            return False
        self._count("mount")
        with MemoryStore.fetch(source, desc) as reader:
            super().push(desc, reader)
        return True


class World:
    """Registries by name."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self._lock = threading.Lock()

    def repository(self, name: str) -> Repository:
        with self._lock:
            return self.repositories.setdefault(name, Repository(name.partition("/")[0]))

    @property
    def stores(self) -> Stores:
        return Stores(
            source=lambda reference: self.repository(reference.name),
            store=self.repository,
            catalog=self.catalog,
        )

    def catalog(self, host: str) -> list[str]:
        prefix = f"{host}/"
        return sorted(name.removeprefix(prefix) for name in self.repositories if name.startswith(prefix))

    def requests(self, host: str) -> Counter[str]:
        """What a registry has been asked since `forget`."""
        total: Counter[str] = Counter()
        for name, repository in self.repositories.items():
            if name.startswith(f"{host}/"):
                total += repository.requests
        return total

    def forget(self) -> None:
        for repository in self.repositories.values():
            repository.requests.clear()

    def job(
        self,
        text: str,
        *,
        lock: Lock | None = None,
        shard: Shard | None = None,
        state: Path | None = None,
        may_pull: bool = True,
        limits: Limits | None = None,
        to: str = "",
    ) -> Job:
        file = parse(text.encode(), to=to)
        settings = Settings(lock=lock, shard=shard or Shard(), state=state, may_pull=may_pull)
        return Job(file, self.stores, settings, limits=limits)


def push_image(store: Store, *layers: str, architecture: str = "amd64", tag: str = "") -> Descriptor:
    """Push an image whose layers are these texts; equal texts are equal blobs."""
    config = json.dumps(
        {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}}
    )
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": push_blob(store, config, mediatypes.OCI_CONFIG).to_json(),
        "layers": [push_blob(store, layer, mediatypes.OCI_LAYER).to_json() for layer in layers],
    }
    return _manifest(store, manifest, tag)


def push_index(store: Store, images: dict[str, Descriptor], *, tag: str = "") -> Descriptor:
    """Push an index of images by architecture."""
    entries = [
        {**desc.to_json(), "platform": {"os": "linux", "architecture": architecture}}
        for architecture, desc in images.items()
    ]
    return _manifest(
        store, {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}, tag
    )


def push_multi(store: Store, text: str, *architectures: str, tag: str = "") -> Descriptor:
    """Push an index with an image for each architecture."""
    images = {
        architecture: push_image(store, f"{text} {architecture}", architecture=architecture)
        for architecture in architectures
    }
    return push_index(store, images, tag=tag)


def push_signature(store: Store, subject: Descriptor, text: str = "signed", *, tag: str = "") -> Descriptor:
    """Push an artifact that refers to another manifest, or that only its tag connects with it."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "artifactType": "application/x-signature",
        "config": push_blob(store, "{}", mediatypes.OCI_EMPTY).to_json(),
        "layers": [push_blob(store, text, "application/x-signature").to_json()],
    }
    if not tag:
        manifest["subject"] = {
            "mediaType": subject.media_type,
            "digest": str(subject.digest),
            "size": subject.size,
        }
    return _manifest(store, manifest, tag)


def push_blob(store: Store, text: str, media_type: str = mediatypes.OCI_LAYER) -> Descriptor:
    """Push a text as a blob."""
    desc = Descriptor.of(media_type, text.encode())
    store.push(desc, io.BytesIO(text.encode()))
    return desc


def _manifest(store: Store, fields: dict[str, Any], tag: str) -> Descriptor:
    raw = json.dumps(fields).encode()
    desc = Descriptor.of(fields["mediaType"], raw)
    store.push(desc, io.BytesIO(raw))
    if tag:
        store.tag(desc, tag)
    return desc
