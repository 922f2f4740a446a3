"""The fixture images, built when first asked for."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

IMAGES = Path(__file__).parents[2] / "fixtures" / "images"


def build(directory: Path) -> None:
    """Write the fixture layout."""
    subprocess.run([sys.executable, IMAGES / "build.py", directory], check=True, stdout=subprocess.DEVNULL)


@functools.cache
def layout() -> Path:
    """The layout that all tests share; who changes one copies it, or builds their own."""
    directory = IMAGES / "layout"
    build(directory)
    return directory


@functools.cache
def digests() -> dict[str, str]:
    """The pinned digest of every image, by name."""
    pinned: dict[str, str] = json.loads((IMAGES / "digests.json").read_bytes())
    return pinned
