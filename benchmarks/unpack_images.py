"""Make the three images that unpacking is measured with, from files of this machine, as one layer each.

`debian` needs mmdebstrap; `node` is tens of thousands of small text files in deep directories, as npm leaves
them; `learning` is large shared objects among many small files, as machine-learning wheels are.

    python benchmarks/unpack_images.py /dev/shm/images [debian node learning]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OCI = "application/vnd.oci.image."


def debian(tar: Path) -> None:
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(tar)], check=True)


def node(tar: Path) -> None:
    texts = [
        path
        for path in files("/usr/share", "/usr/lib/python3", "/usr/include")
        if 500 < path.stat().st_size < 65_536
    ]
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        supply = itertools.cycle(texts)
        for package in range(1_600):
            base = f"app/node_modules/@scope{package % 40}/package-{package}"
            for directory in ("", "/lib", "/dist", "/dist/esm", "/test"):
                add_directory(archive, base + directory)
            for number in range(25):
                where = ("", "/lib", "/dist", "/dist/esm", "/test")[number % 5]
                add_file(archive, f"{base}{where}/module-{number}.js", next(supply))


def learning(tar: Path) -> None:
    everything = [
        path for path in files("/usr/lib", "/usr/bin", "/usr/share", sys.prefix) if path.stat().st_size
    ]
    large = [path for path in everything if path.stat().st_size > 400_000]
    small = [path for path in everything if 200 < path.stat().st_size < 30_000]
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        supply, objects, total = itertools.cycle(small), itertools.cycle(large), 0
        for package in range(700):
            base = f"opt/venv/lib/python3.11/site-packages/package{package}"
            add_directory(archive, base)
            for number in range(50):
                if number % 25 == 0:
                    add_directory(archive, f"{base}/part{number}")
                add_file(archive, f"{base}/part{number // 25 * 25}/module{number}.py", next(supply))
            while total < (package + 1) * 1_200_000_000 // 700:
                path = next(objects)
                add_file(archive, f"{base}/lib{total}.so", path)
                total += path.stat().st_size


def files(*roots: str) -> Iterator[Path]:
    for root in roots:
        for directory, directories, names in os.walk(root):
            directories.sort()
            for name in sorted(names):
                path = Path(directory, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def add_directory(archive: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
    archive.addfile(info)


def add_file(archive: tarfile.TarFile, name: str, source: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = source.stat().st_size, 0o644, 1_700_000_000
    with source.open("rb") as file:
        archive.addfile(info, file)


def layout(directory: Path, tar: Path) -> None:
    """An image layout with one layer, compressed as `gzip -6` does."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    with tar.open("rb") as file:
        diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    with (blobs / "layer").open("wb") as out:
        subprocess.run(["gzip", "-6nc", str(tar)], stdout=out, check=True)
    layer = named(blobs / "layer", OCI + "layer.v1.tar+gzip")
    command = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
    config = document(
        blobs, {**command, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}, OCI + "config.v1+json"
    )
    manifest = document(
        blobs, {"schemaVersion": 2, "config": config, "layers": [layer]}, OCI + "manifest.v1+json"
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def named(path: Path, media_type: str) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.rename(path.with_name(digest))
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": size}


def document(blobs: Path, content: dict[str, object], media_type: str) -> dict[str, object]:
    (blobs / "document").write_text(json.dumps(content))
    return named(blobs / "document", media_type)


MAKERS: dict[str, Callable[[Path], None]] = {"debian": debian, "node": node, "learning": learning}


def main(where: str, *names: str) -> None:
    for name in names or MAKERS:
        tar = Path(where, name + ".tar")
        tar.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[name](tar)
        layout(Path(where, name), tar)
        tar.unlink()
        print(f"{name}: {sum(path.stat().st_size for path in Path(where, name).rglob('*')):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
