"""Interrupting a mirror whose source has fallen silent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.command import Ocitool
from support.mirror_stores import push_image
from support.registry_fake import FakeRegistry, Request, Response, always
from support.registry_images import client, repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("silent_about", ["/manifests/1.0", "/blobs/"], ids=["planning", "copying"])
def test_an_interrupt_waits_for_no_registry_that_says_nothing(tmp_path: Path, silent_about: str) -> None:
    asked, over = threading.Event(), threading.Event()

    def say_nothing(_: Request) -> Response | None:
        asked.set()
        over.wait()
        return None

    with FakeRegistry().running() as source:
        with client() as pushing:
            push_image(repository(pushing, source.name), "a", tag="1.0")
        source.before.append(always("", silent_about, say_nothing))
        file = tmp_path / "mirror.yaml"
        image, copy = f"{source.name}/some/repo:1.0", f"oci:{tmp_path}/copy:1.0"
        file.write_text(f"version: 1\nsources:\n  - {{image: '{image}', to: '{copy}'}}\n")
        with subprocess.Popen(
            [sys.executable, "-m", "ocitool", "mirror", file],
            env=Ocitool(tmp_path).environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert asked.wait(60)
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=20)
            finally:
                process.kill()
                over.set()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "ocitool: interrupted"
