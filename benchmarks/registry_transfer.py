"""Pull and push of an image with two layers, 380 MB together, from and to docker-registry on loopback.

    python benchmarks/registry_transfer.py [DIRECTORY]

Needs docker-registry and, to compare with, skopeo. What is measured is whole processes with their start.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from measure import Contender, compare
from support.registry_images import image
from support.registry_process import docker_registry

from ocitool.layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = (320_000_000, 60_000_000)
OCITOOL = str(Path(sys.executable).with_name("ocitool"))


@contextmanager
def scene(directory: Path) -> Iterator[tuple[str, Path]]:
    """A registry that has the image as bench/app:v1, and a layout that has it as v1."""
    layout = directory / "layout"
    # In another process: what a child is said to have used at most starts with what its parent holds.
    subprocess.run([sys.executable, __file__, "--make", layout], check=True)
    with docker_registry(directory) as registry:
        subprocess.run(
            [OCITOOL, "--quiet", "push", f"oci:{layout}:v1", f"{registry}/bench/app:v1"], check=True
        )
        yield registry, layout


def pulls(registry: str, directory: Path) -> list[Contender]:
    """Each pulls into a layout that is not there yet."""
    target = directory / "pulled"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)

    return [
        Contender(
            "ocitool", [OCITOOL, "--quiet", "pull", f"{registry}/bench/app:v1", f"oci:{target}:v1"], clean
        ),
        Contender(
            "skopeo",
            [
                "skopeo",
                "copy",
                "--src-tls-verify=false",
                f"docker://{registry}/bench/app:v1",
                f"oci:{target}:v1",
            ],
            clean,
        ),
        Contender(
            "crane",
            ["crane", "pull", "--insecure", "--format=oci", f"{registry}/bench/app:v1", str(target)],
            clean,
        ),
    ]


def pushes(registry: str, layout: Path, directory: Path) -> list[Contender]:
    """Each pushes into a registry that has nothing of it."""

    def clean() -> None:
        shutil.rmtree(directory / "data", ignore_errors=True)

    return [
        Contender(
            "ocitool", [OCITOOL, "--quiet", "push", f"oci:{layout}:v1", f"{registry}/bench/copy:v1"], clean
        ),
        Contender(
            "skopeo",
            [
                "skopeo",
                "copy",
                "--dest-tls-verify=false",
                f"oci:{layout}:v1",
                f"docker://{registry}/bench/copy:v1",
            ],
            clean,
        ),
    ]


def main() -> None:
    """Measure both ways."""
    if sys.argv[1:2] == ["--make"]:
        image(LayoutStore(Path(sys.argv[2])), *LAYERS)
        return
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as name:
        directory = Path(name)
        with scene(directory) as (registry, layout):
            compare("pull of 380 MB in two layers", pulls(registry, directory))
            compare("push of 380 MB in two layers", pushes(registry, layout, directory))


if __name__ == "__main__":
    main()
