"""Every test here runs real containers, and leaves the host as it found it (RN-19, RN-20)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.ordinary import NOBODY
from support.peers import not_installed, require_root
from support.run_bundles import BUSYBOX, ORDINARY, Bundle, Containers, host_traces, make_bundle


@pytest.fixture
def workplace() -> Iterator[Path]:
    """A directory that an ordinary user can reach, which pytest's own are not."""
    if os.geteuid() != 0:
        pytest.skip("the runtime's integration tests need root: they also switch to an ordinary user")
    if not BUSYBOX.exists():
        not_installed("busybox-static")
    path = Path(tempfile.mkdtemp(prefix="ocitool-test-"))
    path.chmod(0o755)
    yield path
    remove(path)


@pytest.fixture
def ordinary_home() -> Iterator[Path]:
    """A directory of an ordinary user's, who may leave files of other ids in it."""
    require_root()
    home = Path(tempfile.mkdtemp())
    os.chown(home, NOBODY, NOBODY)
    yield home
    subprocess.run(["rm", "-rf", home], check=True)


def remove(path: Path) -> None:
    """Remove a tree in which an engine may still be tidying up behind its last container."""
    for _ in range(50):
        with suppress(OSError):
            shutil.rmtree(path)
            return
        time.sleep(0.1)
    shutil.rmtree(path)


@pytest.fixture
def containers(workplace: Path) -> Iterator[Containers]:
    """The command line, with a check that nothing is left behind."""
    found = Containers(workplace)
    found.ordinary_root.mkdir()
    os.chown(found.ordinary_root, ORDINARY, ORDINARY)
    yield found
    found.delete_all()
    assert host_traces(workplace) == []


@pytest.fixture
def bundle(workplace: Path) -> Bundle:
    """A bundle for root."""
    return make_bundle(workplace / "bundle", "true")


@pytest.fixture
def ordinary_bundle(workplace: Path) -> Bundle:
    """A bundle that an ordinary user owns."""
    return make_bundle(workplace / "ordinary", "true", ordinary=True)
