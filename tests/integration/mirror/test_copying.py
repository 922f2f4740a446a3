"""`ocitool copy` from registry to registry: content passes through, and rests nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.mirror_stores import push_image, push_signature
from support.peers import require

if TYPE_CHECKING:
    from support.mirror_field import Field

pytestmark = pytest.mark.registry


def test_a_copy_between_registries_opens_no_file_to_write(between: Field) -> None:
    require("strace")
    image = push_image(between.above("team/app"), "x" * 5_000_000, "y", tag="1.0")
    push_signature(between.above("team/app"), image)
    trace = between.work / "trace"
    copy = [sys.executable, "-m", "ocitool", "--quiet", "copy", "--referrers"]
    names = [f"{host}/team/app:1.0" for host in (between.up_host, between.down)]
    environment = {**between.run.environment, "PYTHONDONTWRITEBYTECODE": "1"}
    observed = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=%file,memfd_create"]

    done = subprocess.run([*observed, *copy, *names], env=environment, check=True, capture_output=True)

    assert done.stdout.decode().strip() == str(image.digest)
    assert between.below("team/app").resolve("1.0") == image
    lines = trace.read_text().splitlines()
    assert any("openat" in line for line in lines)
    changing = r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|mkdir|memfd|rename|link|mknod|truncate"
    changed = [line for line in lines if re.search(changing, line) and "readlink" not in line]
    assert [line for line in changed if f'"{os.devnull}"' not in line] == []


def test_a_blob_that_the_registry_has_elsewhere_is_mounted_and_not_read(between: Field) -> None:
    image = push_image(between.above("team/app"), "x" * 100_000, tag="1.0")
    between.up.served.clear()

    between.run("--quiet", "copy", f"{between.up_host}/team/app:1.0", f"{between.up_host}/other/app:1.0")

    assert between.above("other/app").resolve("1.0") == image
    assert not [
        request for request in between.up.served if (request.method, request.route) == ("GET", "blob")
    ]
