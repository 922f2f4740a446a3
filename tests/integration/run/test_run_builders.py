"""An image that goes back and forth: a builder builds upon what we wrote, and we run what it built."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command import Ocitool
from support.peers import call, require, require_root

pytestmark = [pytest.mark.root, pytest.mark.peers]

RECIPE = 'FROM {base}\nRUN echo built >/built\nENTRYPOINT ["cat"]\nCMD ["/built"]\n'


@pytest.fixture
def buildah() -> Iterator[tuple[str, ...]]:
    """buildah with a storage of its own, which wants a short path."""
    require_root()
    require("buildah")
    with tempfile.TemporaryDirectory(prefix="oci", ignore_cleanup_errors=True) as root:
        yield "buildah", "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs"


def test_buildah_builds_upon_our_layouts_and_we_run_unpack_and_change_what_it_built(
    ocitool: Ocitool, busybox_image: str, buildah: tuple[str, ...], tmp_path: Path
) -> None:
    layout = f"oci:{tmp_path}/layout"
    ocitool("copy", busybox_image, f"{layout}:base")
    recipe = tmp_path / "Containerfile"
    recipe.write_text(RECIPE.format(base=f"{layout}:base"))
    build = ("bud", "--quiet", "--isolation", "chroot", "--tag", f"{layout}:built", "--file", recipe)
    call(*buildah, *build, tmp_path)
    assert ocitool("run", f"{layout}:built").out == "built\n"
    ocitool("unpack", f"{layout}:built", "bundle")
    assert ocitool("run", "./bundle").out == "built\n"
    (ocitool.home / "bundle/rootfs/changed").write_text("changed\n")
    ocitool("repack", f"{layout}:built", "bundle", "changed")
    container = call(*buildah, "from", "--quiet", f"{layout}:changed").strip()
    seen = call(*buildah, "run", "--isolation", "chroot", container, "--", "cat", "/built", "/changed")
    assert seen == "built\nchanged\n"
    call(*buildah, "rm", container)
