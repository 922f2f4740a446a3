"""What every handler needs: the repositories, the options, and threads for work that blocks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from ocitool import limits
from ocitool.content import Receiver, Source, Store
from ocitool.serve.messages import Refused
from ocitool.serve.uploads import Spooled, Upload, Uploads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ocitool.model import Descriptor
    from ocitool.serve.passwords import Passwords
    from ocitool.serve.repositories import Repositories

T = TypeVar("T")

# Work that blocks is a read or a write of a megabyte, or waiting for an upstream registry. Threads are made
# as they are needed; the number is a guess, and bounds how many slow answers can be waited for.
_THREADS: Final = 256


@dataclass(frozen=True, slots=True)
class Served:
    """One request that has been answered, for a log or for figures.

    Attributes:
        client: the client's address, or "".
        user: who it proved to be, or "".
        method, path: what was asked, with what could mislead a terminal escaped.
        route: what kind of thing was asked for ("blob", "manifest", …), or "" for what is not known.
        status: the answer; 499 where the client went away before it.
        received, sent: bytes of the two bodies.
        seconds: from the request's head to the last byte of the answer.
        agent: what the client calls itself.
        failure: what went wrong in the server, or None.
    """

    client: str
    user: str
    method: str
    path: str
    route: str
    status: int
    received: int
    sent: int
    seconds: float
    agent: str = ""
    failure: BaseException | None = field(default=None, compare=False)


def ignore(served: Served, /) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a registry behaves.

    Attributes:
        read_only: refuse everything that changes content.
        allow_delete: let content and tags be deleted.
        sparse_indexes: take an index although manifests that it lists are missing.
        manifest_bytes: the largest manifest to take and to serve.
        blob_bytes: the largest blob to take.
        connections: how many clients may be connected; to one more the answer is 503.
        uploads: how many uploads may be under way at once.
        upload_seconds: how long an upload may rest before it is forgotten.
        idle_seconds: how long a request's body may stall.
        spool: where uploads are kept for stores that are no Receiver; None is the system's temporary
            directory.
        passwords: who may use the registry; None is everyone.
        metrics: answer `/metrics` with figures for Prometheus.
        on_request: is told of every request, from the server's own thread, and must be quick.
        on_failure: is told in the same way of what goes wrong outside of requests.
    """

    read_only: bool = False
    allow_delete: bool = True
    sparse_indexes: bool = False
    manifest_bytes: int = limits.MANIFEST_BYTES
    blob_bytes: int = limits.DECOMPRESSED_BYTES
    connections: int = 1000
    uploads: int = 1000
    upload_seconds: float = 3600
    idle_seconds: float = 120
    spool: Path | None = None
    passwords: Passwords | None = None
    metrics: bool = True
    on_request: Callable[[Served], None] = ignore
    on_failure: Callable[[Exception], None] = lambda _: None


class Service:
    """The registry behind the handlers."""

    def __init__(self, repositories: Repositories, options: Options) -> None:
        self.repositories = repositories
        self.options = options
        self.uploads = Uploads(options.uploads, options.upload_seconds)
        self.tagging = asyncio.Lock()
        self.streams = 0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="ocitool-serve")

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin work that blocks, in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(self, work: Callable[[], T]) -> T:
        """Do work that blocks, in a thread."""
        return await self.start(work)

    async def read(self, name: str, work: Callable[[Source], T]) -> T:
        """Do work that reads a repository, in a thread.

        Raises:
            Refused: there is none of that name.
        """

        def opened() -> T:
            source = self.repositories.open(name)
            if source is None:
                # distribution-spec, "Pushing Manifests": "An attempt to pull a nonexistent repository MUST
                # return response code `404 Not Found`."
                raise Refused(404, "NAME_UNKNOWN", f"there is no repository {name}")
            return work(source)

        return await self.run(opened)

    async def resolve(self, name: str, reference: str) -> tuple[Source, Descriptor]:
        """A repository to read from, and what a reference stands for in it.

        Raises:
            Refused: there is no such repository.
            OciError: whatever the repository raises.
        """
        return await self.read(name, lambda source: (source, source.resolve(reference)))

    async def store(self, name: str, *, create: bool = False) -> Store:
        """A repository to change.

        Raises:
            Refused: there is none of that name, or it can't be changed.
        """
        if self.options.read_only:
            raise read_only()
        found = await self.run(lambda: self.repositories.open(name, create=create))
        if found is None:
            raise Refused(404, "NAME_UNKNOWN", f"there is no repository {name}")
        if not isinstance(found, Store):
            raise read_only()
        return found

    async def upload(self, name: str, store: Store) -> Upload:
        """Begin an upload to a repository.

        Raises:
            Refused: there are too many.
        """
        self.uploads.check_room()
        spool = self.options.spool
        return self.uploads.start(
            name,
            await self.run(lambda: store.receive() if isinstance(store, Receiver) else Spooled(store, spool)),
        )

    def close(self) -> None:
        """Let go of threads and of unfinished uploads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.uploads.close()


def read_only() -> Refused:
    """The answer to whoever wants to change what can't be changed."""
    return Refused(405, "UNSUPPORTED", "this registry is read-only", headers={"allow": "GET, HEAD"})
