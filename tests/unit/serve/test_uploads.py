"""Uploads under way: only one that rests too long is forgotten."""

from __future__ import annotations

import asyncio
import time

from ocitool.memory import MemoryStore
from ocitool.serve.uploads import Spooled, Upload, Uploads

SECONDS = 0.05


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
        uploads.close()

    asyncio.run(hold())
