"""Interrupting a mirror whose source has fallen silent."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_while_it_copies_reports_what_it_has_done(
    tmp_path: Path, number: signal.Signals
) -> None:
    asked, over = threading.Event(), threading.Event()

    def say_nothing(_: Request) -> Response | None:
        asked.set()
        over.wait()
        return None

    report = tmp_path / "report.json"
    report.write_text("the last run's")
    with FakeRegistry().running() as source:
        with client() as pushing:
            push_image(repository(pushing, source.name, "quick/repo"), "a", tag="1.0")
            push_image(repository(pushing, source.name, "slow/repo"), "b", tag="1.0")
        source.before.append(always("GET", "/slow/repo/blobs/", say_nothing))
        file = tmp_path / "mirror.yaml"
        images = [f"{source.name}/{name}/repo:1.0" for name in ("quick", "slow")]
        file.write_text(
            "version: 1\nsources:\n"
            + "".join(f"  - {{image: '{image}', to: 'oci:{tmp_path}/there:{image}'}}\n" for image in images)
        )
        with subprocess.Popen(
            [sys.executable, "-m", "ocitool", "mirror", file, "--jobs", "1", "--report", f"json={report}"],
            env=Ocitool(tmp_path).environment,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert asked.wait(60)  # of the second image, so that the first one is done
                process.send_signal(number)
                process.communicate(timeout=20)
            finally:
                process.kill()
                over.set()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    quick, slow = json.loads(report.read_text())["images"]
    assert quick["outcome"] == "copied"
    assert (slow["outcome"], slow["error"]["message"]) == (
        "failed",
        "the run ended before this image was done",
    )
