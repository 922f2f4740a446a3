"""Make the three images that unpacking is measured with, as one layer each.

`debian` is what mmdebstrap installs, `node` what npm does of a web application's packages, `learning` what
pip does of a machine-learning one's. Where npm or pip can't, files of this machine stand in for theirs, and
the script says so: such a tree has as many files, but smaller ones than npm brings, and less varied ones.

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
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OCI = "application/vnd.oci.image."
NPM = """
    next@14 react@18 react-dom@18 typescript@5 webpack@5 @babel/core@7 @babel/preset-env@7 eslint@8 jest@29
    lodash@4 core-js@3 rxjs@7 date-fns@2 @mui/material@5 express@4 @angular/core@17 @angular/compiler-cli@17
    aws-sdk@2 googleapis@140 echarts@5 three@0.160
"""
PYPI = "torch==2.13.0 scipy pandas scikit-learn transformers pyarrow matplotlib"


def debian(tar: Path) -> None:
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(tar)], check=True)


def node(tar: Path) -> None:
    where = ["--prefix", "{}/app"]
    quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--loglevel=error"]
    if not installed(tar, ["npm", "install", *where, *quietly, *NPM.split()]):
        stand_in_for_node(tar)


def learning(tar: Path) -> None:
    where = ["--target", "{}/opt/venv/lib/python3/site-packages"]
    quietly = ["--quiet", "--no-compile", "--only-binary", ":all:"]
    if not installed(tar, [sys.executable, "-m", "pip", "install", *where, *quietly, *PYPI.split()]):
        stand_in_for_learning(tar)


def installed(tar: Path, command: list[str]) -> bool:
    """Archive what a package manager installs into a directory, which stands in its command as `{}`."""
    with tempfile.TemporaryDirectory(dir=tar.parent) as root:
        try:
            subprocess.run([part.replace("{}", root) for part in command], check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{tar.stem}: files of this machine stand in for real packages: {error}")
            return False
        archive(tar, root)
    return True


def archive(tar: Path, root: str) -> None:
    """Like a builder of images: PAX headers where a name needs them, whole seconds, root's files."""
    plain = ["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner"]
    pax = ["--format=posix", "--pax-option=delete=atime,delete=ctime"]
    subprocess.run(["tar", *plain, *pax, "-C", root, "-cf", str(tar), "."], check=True)


def stand_in_for_node(tar: Path) -> None:
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


def stand_in_for_learning(tar: Path) -> None:
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
