"""What every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.peers import call, require
from support.run_bundles import make_rootfs

# Shared machines are slow by fits and starts, so no example has a deadline; CI repeats the same examples.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# A shell starts what runs in the background with SIGINT ignored, and whatever that starts inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the configuration, credentials and proxies of whoever runs the tests out of them."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in list(os.environ):
        if name == "OCITOOL_NO_APT":
            continue
        if name.lower().endswith("_proxy") or name.startswith(
            ("OCITOOL_", "DOCKER_", "REGISTRY_AUTH", "XDG_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """A minimal Debian 12 root filesystem, about 8,700 entries, made once and kept in build/."""
    require("mmdebstrap")
    path = Path(__file__).parent.parent / "build" / "debian-12.tar"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial.tar")
        call("mmdebstrap", "--variant=minbase", "--quiet", "bookworm", partial)
        partial.rename(path)
    return path


@pytest.fixture(scope="session")
def debian_layout(debian_tar: Path) -> Path:
    """That root filesystem as an image that another tool made: one gzip layer, tag `12`."""
    require("skopeo")
    path = debian_tar.parent / "debian-12"
    if not (path / "index.json").exists():
        call("skopeo", "copy", f"tarball:{debian_tar}", f"oci:{path}:12")
    return path


@pytest.fixture(scope="session")
def busybox_image() -> Iterator[str]:
    """An image of busybox alone, made by another tool: quick to unpack, with a shell, and readable to all."""
    require("skopeo", "busybox")
    base = Path(tempfile.mkdtemp(prefix="ocitool-busybox-"))
    make_rootfs(base / "rootfs")
    (base / "rootfs/etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1234:1234::/:/bin/sh\n")
    (base / "rootfs/etc/group").write_text("root:x:0:\nalice:x:1234:\n")
    call("tar", "--numeric-owner", "-C", base / "rootfs", "-cf", base / "rootfs.tar", ".")
    call("skopeo", "copy", f"tarball:{base}/rootfs.tar", f"oci:{base}/image:1")
    base.chmod(0o755)
    yield f"oci:{base}/image:1"
    shutil.rmtree(base)
