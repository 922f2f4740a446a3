"""Uploads under way: bytes that have come and belong to no content yet."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING

from ocitool.errors import OciError
from ocitool.scratch import write_all
from ocitool.serve.messages import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ocitool.content import Incoming, Store
    from ocitool.model import Descriptor


class Spooled:
    """Content for a store that wants to know what it gets: kept in a file until that is known."""

    def __init__(self, store: Store, directory: Path | None) -> None:
        self._store = store
        self.size = 0
        # Without a name in the file system, so that nothing is left whatever becomes of this process.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - see `close`

    def write(self, data: bytes, /) -> None:
        """See `Incoming`."""
        try:
            write_all(self._file, data)
        except OSError as error:
            self._file.seek(self.size)  # what was written beyond is written over, or cut off by `commit`
            raise OciError(f"an upload can't be kept: {error.strerror}") from error
        self.size += len(data)

    def commit(self, desc: Descriptor, /) -> None:
        """See `Incoming`."""
        self._file.truncate(self.size)
        self._file.seek(0)
        self._store.push(desc, self._file)

    def close(self) -> None:
        """See `Incoming`."""
        self._file.close()


class Upload:
    """One upload. Whoever changes it holds its lock: a client may repeat a request that still runs."""

    def __init__(self, name: str, content: Incoming) -> None:
        self.id = str(uuid.uuid4())
        self.name = name
        self.content = content
        self.lock = asyncio.Lock()
        self.touched = time.monotonic()
        self.expiry: asyncio.TimerHandle | None = None

    def append(self, data: bytes) -> None:
        """Keep more bytes.

        Raises:
            OciError: they can't be kept; what came before them is.
        """
        self.content.write(data)
        self.touched = time.monotonic()

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return self.content.size

    @property
    def location(self) -> str:
        """Where the upload goes on."""
        return f"/v2/{self.name}/blobs/uploads/{self.id}"

    @property
    def range(self) -> str:
        """What has come, as the specification writes it; nothing and one byte are written alike."""
        return f"0-{max(self.size - 1, 0)}"


class Uploads:
    """All of them; used by one thread only, that of the event loop."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit = limit
        self._seconds = seconds
        self._uploads: dict[str, Upload] = {}

    def check_room(self) -> None:
        """Make sure that one more upload may begin.

        Raises:
            Refused: there are too many.
        """
        if len(self._uploads) >= self._limit:
            raise Refused(429, "TOOMANYREQUESTS", f"{self._limit} uploads are under way already")

    def start(self, name: str, content: Incoming) -> Upload:
        """Begin an upload to a repository."""
        upload = Upload(name, content)
        self._uploads[upload.id] = upload
        self._watch(upload, self._seconds)
        return upload

    def get(self, name: str, upload_id: str) -> Upload:
        """An upload that has begun.

        Raises:
            Refused: there is none of that name in that repository.
        """
        upload = self._uploads.get(upload_id)
        if upload is None or upload.name != name:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {upload_id:.40} to {name}")
        return upload

    @asynccontextmanager
    async def held(self, name: str, upload_id: str) -> AsyncIterator[Upload]:
        """An upload that has begun, for one request; others to the same upload wait for it.

        Raises:
            Refused: there is none of that name in that repository, or a request before this one ended it.
        """
        async with self.get(name, upload_id).lock:
            yield self.get(name, upload_id)

    def forget(self, upload: Upload) -> None:
        """End an upload."""
        self._uploads.pop(upload.id, None)
        if upload.expiry:
            upload.expiry.cancel()
        upload.content.close()

    def close(self) -> None:
        """End all of them."""
        for upload in list(self._uploads.values()):
            self.forget(upload)

    def __len__(self) -> int:
        return len(self._uploads)

    def _watch(self, upload: Upload, seconds: float) -> None:
        upload.expiry = asyncio.get_running_loop().call_later(seconds, self._expire, upload)

    def _expire(self, upload: Upload) -> None:
        """Forget an upload that has rested too long, or look again when it may have."""
        left = upload.touched + self._seconds - time.monotonic()
        if left > 0 or upload.lock.locked():
            self._watch(upload, max(left, 1))
        else:
            self.forget(upload)
