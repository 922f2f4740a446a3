"""Mirror many small images from registry to registry, beside `skopeo sync`: the first run, and one in which
nothing has changed.

Both registries are Debian's docker-registry on loopback, the destination's content on the memory file system,
so that what is compared is the tools. Before each first run the destination is emptied.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from measure import Contender, compare  # noqa: E402
from support.registry_process import docker_registry  # noqa: E402

from ocitool import mediatypes  # noqa: E402
from ocitool.model import Descriptor  # noqa: E402
from ocitool.reference import Reference  # noqa: E402
from ocitool.registry import Client  # noqa: E402

if TYPE_CHECKING:
    from ocitool.content import Store

REPOSITORIES = 20
TAGS = 10
LAYER_BYTES = 8 << 10


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


def main() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        work = Path(name)
        for part in ("up", "down"):
            (work / part).mkdir()
        with docker_registry(work / "up") as up, docker_registry(work / "down") as down:
            fill(up)
            measure(work, up, down)


def measure(work: Path, up: str, down: str) -> None:
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
        f"{REPOSITORIES * TAGS} small images, first run",
        [Contender("ocitool", ocitool, empty), Contender("skopeo sync", skopeo, empty)],
        rounds=3,
    )
    for command in (ocitool, skopeo):
        compare("(filling the destination)", [Contender(command[0], command)], rounds=1)
    compare(
        f"{REPOSITORIES * TAGS} small images, unchanged",
        [Contender("ocitool", ocitool), Contender("skopeo sync", skopeo)],
        rounds=3,
    )


if __name__ == "__main__":
    main()
