"""Uploads under way: only one that rests too long is forgotten."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.disks import files_end_at
from support.layout_content import blob

from ocitool.errors import OciError
from ocitool.memory import MemoryStore
from ocitool.serve.uploads import Spooled, Upload, Uploads

SECONDS = 0.05
LIMIT = 1 << 20


async def start(uploads: Uploads) -> Upload:
    return uploads.start("team/app", Spooled(MemoryStore(), None))


def test_an_upload_that_goes_on_is_not_forgotten() -> None:
    async def go_on() -> None:
        uploads = Uploads(9, SECONDS)
        upload = await start(uploads)
        upload.touched = time.monotonic() + 3600  # as if bytes came all the time
        await asyncio.sleep(6 * SECONDS)
        assert uploads.get("team/app", upload.id) is upload
        uploads.close()

    asyncio.run(go_on())


def test_an_upload_that_a_request_holds_is_not_forgotten() -> None:
    async def hold() -> None:
        uploads = Uploads(9, SECONDS)
        upload = await start(uploads)
        async with uploads.held("team/app", upload.id):
            await asyncio.sleep(6 * SECONDS)
            assert uploads.get("team/app", upload.id) is upload
        # Once that request has ended it rests like any other, and is looked at again within a second.
        await asyncio.sleep(1.5)
        assert len(uploads) == 0

    asyncio.run(hold())


def test_an_upload_that_has_ended_waits_for_nothing() -> None:
    async def end() -> None:
        uploads = Uploads(9, 3600)
        upload = await start(uploads)
        uploads.forget(upload)
        assert upload.expiry is not None
        assert upload.expiry.cancelled()
        assert len(uploads) == 0

    asyncio.run(end())


def test_f_15_what_was_half_written_is_no_part_of_what_is_committed() -> None:
    content = [b"a" * (LIMIT - 1000), b"b" * 2000, b"c" * 10]
    store = MemoryStore()
    upload = Spooled(store, None)
    upload.write(content[0])
    with files_end_at(LIMIT), pytest.raises(OciError, match="an upload can't be kept"):
        upload.write(content[1])
    assert upload.size == len(content[0])
    upload.write(content[2])
    upload.commit(blob(content[0] + content[2]))
    upload.close()
    assert store.exists(blob(content[0] + content[2]))
