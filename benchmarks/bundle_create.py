"""Twenty images that share layers: a bundle of them, beside skopeo copying them one by one to a layout.

    python benchmarks/bundle_create.py [DIRECTORY]

Wants about 1.5 GB in DIRECTORY (a temporary one by default).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from measure import Contender, compare

IMAGES = 20
MIB = 1 << 20


class Layout:
    """An image layout, written by hand."""

    def __init__(self, path: Path) -> None:
        self.blobs = path / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.path = path
        self.entries: list[dict[str, object]] = []

    def put(self, content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def image(self, tag: str, layers: list[dict[str, object]]) -> None:
        base = "application/vnd.oci.image."
        diff_ids = [layer["digest"] for layer in layers]
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        document = {
            "schemaVersion": 2,
            "mediaType": base + "manifest.v1+json",
            "config": self.put(json.dumps(config).encode(), base + "config.v1+json"),
            "layers": layers,
        }
        entry = self.put(json.dumps(document).encode(), base + "manifest.v1+json")
        self.entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})

    def close(self) -> None:
        index = {"schemaVersion": 2, "manifests": self.entries}
        (self.path / "index.json").write_text(json.dumps(index))
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def tar(content: bytes) -> bytes:
    """A layer with one file."""
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(hashlib.sha256(content).hexdigest())
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make(path: Path) -> None:
    """Twenty images of two bases: a large layer, a middle one, and one of their own."""
    layout = Layout(path)
    kind = "application/vnd.oci.image.layer.v1.tar"
    bases = [layout.put(tar(os.urandom(60 * MIB)), kind) for _ in range(2)]
    middles = [layout.put(tar(os.urandom(20 * MIB)), kind) for _ in range(4)]
    for n in range(IMAGES):
        own = layout.put(tar(os.urandom(4 * MIB)), kind)
        layout.image(f"app{n}", [bases[n % 2], middles[n % 4], own])
    layout.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as directory:
        work = Path(directory)
        make(work / "images")
        unique = sum(blob.stat().st_size for blob in (work / "images" / "blobs" / "sha256").iterdir())
        bundle, theirs = work / "out.bundle", work / "theirs"
        program = [sys.executable, "-m", "ocitool", "-q", "bundle", "create"]
        places = f"oci:{shlex.quote(str(work / 'images'))}", f"oci:{shlex.quote(str(theirs))}"
        one_by_one = "; ".join(
            f"skopeo copy -q --all {places[0]}:app{n} {places[1]}:app{n}" for n in range(IMAGES)
        )
        contenders = [
            Contender(
                "ocitool",
                [*program, str(bundle), f"oci:{work / 'images'}"],
                lambda: bundle.unlink(missing_ok=True),
            ),
            Contender(
                "skopeo",
                ["sh", "-e", "-c", one_by_one],
                lambda: shutil.rmtree(theirs, ignore_errors=True),
            ),
        ]
        compare(f"{IMAGES} images, {unique / MIB:.0f} MiB of unique content", contenders, rounds=3)
        size = bundle.stat().st_size
        print(f"  the bundle has {size / unique:.4f} of the unique bytes")
        increment(work, program, bundle)


def increment(work: Path, program: list[str], before: Path) -> None:
    """One layer of one image changes: what the next bundle holds."""
    changed = work / "changed"
    shutil.copytree(work / "images", changed)
    layout = Layout.__new__(Layout)
    layout.path, layout.blobs = changed, changed / "blobs" / "sha256"
    layout.entries = json.loads((changed / "index.json").read_bytes())["manifests"]
    new = layout.put(tar(os.urandom(4 * MIB)), "application/vnd.oci.image.layer.v1.tar")
    entry = layout.entries.pop()
    manifest = json.loads((layout.blobs / str(entry["digest"])[7:]).read_bytes())
    layout.image("app19", [*manifest["layers"][:2], new])
    layout.close()
    after = work / "next.bundle"
    contender = Contender(
        "ocitool",
        [*program, str(after), f"oci:{changed}", "--since", str(before)],
        lambda: after.unlink(missing_ok=True),
    )
    compare("the next bundle, with one changed layer", [contender], rounds=3)
    more = after.stat().st_size - int(str(new["size"]))
    print(f"  it is {more / 1024:.0f} KiB larger than that layer")


if __name__ == "__main__":
    main()
