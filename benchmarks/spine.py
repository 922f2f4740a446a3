"""Pull and unpack of a real minimal Debian image, beside whichever peers are on PATH.

    .venv/bin/python benchmarks/spine.py [DIRECTORY]

DIRECTORY is where everything is written, by default below /dev/shm, so that no disk takes part.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import Contender, compare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.registry_process import docker_registry

OCITOOL = str(Path(sys.executable).parent / "ocitool")


def main() -> None:
    """Make the image, serve it, measure."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else "/dev/shm") as directory:
        work = Path(directory)
        call("mmdebstrap", "--variant=minbase", "--quiet", "bookworm", work / "debian.tar")
        call("skopeo", "copy", f"tarball:{work}/debian.tar", f"oci:{work}/image:12")
        (work / "registry").mkdir()
        with docker_registry(work / "registry") as address:
            reference = f"{address}/debian:12"
            call("skopeo", "copy", "--dest-tls-verify=false", f"oci:{work}/image:12", f"docker://{reference}")
            start_up()
            pull(work, reference)
        unpack(work)


def start_up() -> None:
    """How long it takes before anything happens."""
    python = Contender("python -c pass", [sys.executable, "-c", "pass"])
    compare("ocitool --version", [Contender("ocitool", [OCITOOL, "--version"]), python], rounds=20)
    compare("ocitool --help", [Contender("ocitool", [OCITOOL, "--help"]), python], rounds=20)


def pull(work: Path, reference: str) -> None:
    """From a registry on loopback into a fresh layout."""
    target = work / "pulled"

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)

    theirs = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{target}:12"]
    compare(
        "pull of a Debian image, 60 MB in one layer",
        [
            Contender("ocitool", [OCITOOL, "-q", "pull", reference, f"oci:{target}:12"], fresh),
            Contender("skopeo", theirs, fresh),
        ],
    )


def unpack(work: Path) -> None:
    """From a layout into a fresh bundle."""
    target = work / "bundle"

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)

    compare(
        "unpack of it, 8,743 entries",
        [
            Contender("ocitool", [OCITOOL, "-q", "unpack", f"oci:{work}/image:12", str(target)], fresh),
            Contender("umoci", ["umoci", "unpack", "--image", f"{work}/image:12", str(target)], fresh),
        ],
    )


def call(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
