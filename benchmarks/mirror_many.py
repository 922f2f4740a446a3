"""Mirror many small images from registry to registry, beside `skopeo sync`: the first run, and one in which
nothing has changed.

Both registries are Debian's docker-registry on this machine, the destination's content on the memory file
system. They are reached directly, where a request costs nothing but work, and through a relay that holds
every byte for five milliseconds, which is what a registry in the same city costs. Before each first run the
destination is emptied. The whole takes some minutes.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from measure import Contender, compare
from support.registry_process import docker_registry

from ocitool import mediatypes
from ocitool.model import Descriptor
from ocitool.reference import Reference
from ocitool.registry import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocitool.content import Store

REPOSITORIES = 20
TAGS = 10
LAYER_BYTES = 8 << 10
ROUNDS = 3


def fill(host: str) -> None:
    """Push 200 images: in each repository, ten tags that share a base layer."""
    rng = random.Random(0)
    with Client() as client:
        for number in range(REPOSITORIES):
            store = client.repository(Reference.parse(f"{host}/bench/app{number}"))
            # Compressed, or skopeo would compress them, and the two would not do the same.
            base = gzip.compress(rng.randbytes(LAYER_BYTES))
            for tag in range(TAGS):
                push_image(store, [base, gzip.compress(rng.randbytes(LAYER_BYTES))], f"1.{tag}")


def push_image(store: Store, layers: list[bytes], tag: str) -> None:
    """Push an image and name it."""
    parts = [
        (
            mediatypes.OCI_CONFIG,
            json.dumps({"os": "linux", "architecture": "amd64", "created": tag}).encode(),
        ),
        *((mediatypes.OCI_LAYER_GZIP, layer) for layer in layers),
    ]
    config, *descriptors = (Descriptor.of(media_type, content) for media_type, content in parts)
    for (media_type, content), desc in zip(parts, (config, *descriptors), strict=True):
        assert media_type == desc.media_type
        store.push(desc, io.BytesIO(content))
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [desc.to_json() for desc in descriptors],
        }
    ).encode()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, manifest)
    store.push(desc, io.BytesIO(manifest))
    store.tag(desc, tag)


async def hold(port: int, queue: multiprocessing.Queue[int], delay: float) -> None:
    """Relay connections to a port of this machine, every byte `delay` seconds late in both directions."""
    loop = asyncio.get_running_loop()
    relays: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of its tasks

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                loop.call_later(delay, writer.write, data)
        loop.call_later(delay, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(relay(source, sink))
            relays.add(task)
            task.add_done_callback(relays.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    queue.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


@contextmanager
def held(host: str, delay: float) -> Iterator[str]:
    """A registry's address at which it is slower."""
    if not delay:
        yield host
        return
    queue: multiprocessing.Queue[int] = multiprocessing.Queue()
    port = int(host.rpartition(":")[2])
    process = multiprocessing.Process(target=lambda: asyncio.run(hold(port, queue, delay)), daemon=True)
    process.start()
    try:
        yield f"127.0.0.1:{queue.get(timeout=10)}"
    finally:
        process.terminate()
        process.join()


def main() -> None:
    memory = Path("/dev/shm")
    for delay in map(float, sys.argv[1:] or ("0", "0.005")):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
            work = Path(name)
            for part in ("up", "down"):
                (work / part).mkdir()
            with docker_registry(work / "up") as up, docker_registry(work / "down") as down:
                fill(up)
                with held(up, delay) as slow_up, held(down, delay) as slow_down:
                    measure(work, slow_up, slow_down, f"{delay * 2000:.0f} ms away")


def measure(work: Path, up: str, down: str, where: str) -> None:
    ours = work / "mirror.yaml"
    ours.write_text(
        f"version: 1\nsources:\n  - registry: {up}\n    repositories: {{glob: 'bench/*'}}\n"
        f"    to: {down}/ocitool/{{name}}\n"
    )
    theirs = work / "sync.yaml"
    names = [f"bench/app{number}" for number in range(REPOSITORIES)]
    theirs.write_text(json.dumps({up: {"images": {name: [] for name in names}, "tls-verify": False}}))
    state = work / "state"

    def empty() -> None:
        # The registry keeps no state of its own beside these files.
        shutil.rmtree(work / "down" / "data", ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)

    ocitool = [sys.executable, "-m", "ocitool", "--quiet", "mirror", str(ours), "--state", str(state)]
    skopeo = ["skopeo", "sync", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false", "--all"]
    skopeo += [str(theirs), f"{down}/skopeo"]
    compare(
        f"{REPOSITORIES * TAGS} small images, {where}, first run",
        [Contender("ocitool", ocitool, empty), Contender("skopeo sync", skopeo, empty)],
        rounds=ROUNDS,
    )
    for command in (ocitool, skopeo):  # each first run has emptied what the other one brought
        subprocess.run(command, check=True, capture_output=True)
    compare(
        f"{REPOSITORIES * TAGS} small images, {where}, unchanged",
        [Contender("ocitool", ocitool), Contender("skopeo sync", skopeo)],
        rounds=ROUNDS,
    )


if __name__ == "__main__":
    main()
