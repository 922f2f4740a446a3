"""`ocitool run IMAGE true` with its layers unpacked already, beside podman with crun on the same image.

Needs root, busybox-static, podman and crun::

    python benchmarks/run_image.py [ROUNDS]

One image is busybox alone, the other has 37,000 files more in a second layer; a bundle of the first one is
run too. The commands take turns in a mount namespace of its own (see `run_start.py`). Some installers write a
script that loads `re` before it starts us; `ocitool` is measured both with that one and as others write it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Contender, compare
from run_start import OCITOOL, enter_namespace

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.unpack_images import gzipped, image
from support.unpack_tars import archive, directory, file, hardlink

from ocitool import mediatypes

FILES, IN_EACH = 37_000, 100
SCRIPT = f"#!{sys.executable}\nimport sys\nfrom ocitool.__main__ import main\nsys.exit(main())\n"


def main() -> None:
    """Make the images, run each once, measure."""
    enter_namespace()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        os.environ["OCITOOL_STORE"] = str(base / "store")
        layouts = {"busybox": _image(base / "busybox"), f"{FILES:,} files": _image(base / "many", _many())}
        bundle = _bundle(base, layouts["busybox"])
        script = base / "ocitool"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        podman = _podman(base)
        try:
            for name, layout in layouts.items():
                pulled = subprocess.run(
                    [*podman, "pull", "--quiet", layout], check=True, capture_output=True, text=True
                )
                _measure(name, layout, [*podman, "run", "--rm", "--network", "none"], pulled.stdout, rounds)
            ready = [
                Contender(f"image of {name}", [str(script), "run", "--rm", layout, "true"])
                for name, layout in layouts.items()
            ]
            compare(
                "images beside a ready bundle",
                [*ready, Contender("bundle", [str(script), "run", bundle])],
                rounds,
            )
        finally:
            subprocess.run([*podman, "rmi", "--all", "--force"], check=False, capture_output=True)
            subprocess.run(["umount", f"{base}/storage/overlay"], check=False, capture_output=True)


def _measure(name: str, layout: str, podman: list[str], pulled: str, rounds: int) -> None:
    words = ["run", "--rm", layout, "true"]
    script = str(Path(os.environ["OCITOOL_STORE"]).parent / "ocitool")
    compare(
        f"run of a ready image: {name}",
        [
            Contender("ocitool", [script, *words]),
            Contender("ocitool, re", [OCITOOL, *words]),
            Contender("podman", [*podman, pulled.rsplit(maxsplit=1)[-1], "true"]),
            Contender("python -c pass", [sys.executable, "-c", "pass"]),
        ],
        rounds,
    )


def _image(path: Path, *layers: bytes) -> str:
    busybox = Path("/bin/busybox").read_bytes()
    base = archive(
        *(directory(name) for name in (b"bin/", b"dev/", b"etc/", b"proc/", b"sys/")),
        file(b"bin/busybox", busybox, mode=0o755),
        *(hardlink(b"bin/" + name, b"bin/busybox", mode=0o755) for name in (b"sh", b"true")),
    )
    made = image(
        base,
        *layers,
        config={"Env": ["PATH=/bin"], "Cmd": ["true"]},
        compress=gzipped,
        media_type=mediatypes.OCI_LAYER_GZIP,
    )
    return made.to_layout(path)


def _many() -> bytes:
    entries = []
    for number in range(FILES):
        if number % IN_EACH == 0:
            entries.append(directory(b"data%d/" % (number // IN_EACH)))
        entries.append(file(b"data%d/%d" % (number // IN_EACH, number), b"x" * (number % 50)))
    return archive(*entries)


def _bundle(base: Path, layout: str) -> str:
    path = str(base / "bundle")
    subprocess.run([OCITOOL, "-q", "unpack", layout, path], check=True, capture_output=True)
    return path


def _podman(base: Path) -> list[str]:
    (base / "containers.conf").write_text("[containers]\ndefault_ulimits = []\n")
    os.environ["CONTAINERS_CONF"] = str(base / "containers.conf")
    places = ["--root", f"{base}/storage", "--runroot", f"{base}/run"]
    return [
        "podman",
        *places,
        "--storage-driver",
        "overlay",
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        "crun",
    ]


if __name__ == "__main__":
    main()
