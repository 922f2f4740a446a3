"""What the documents show is what happens: every command of a session, and every line that it prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.documents import Shell, Step, normal, steps
from support.fixtures import IMAGES

ROOT = Path(__file__).parents[2]

# What a guide takes for granted is made first.
BEFORE = {
    "README.md": (),
    "docs/tutorial/first-image.md": (),
    "docs/how-to/choose-platforms.md": (
        Step("python3 fixtures/images/build.py images", ("images",)),
        Step("ocitool --quiet copy oci:images:hello:1.0 oci:hello:1.0 >/dev/null", ()),
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_session_goes_as_the_document_shows_it(name: str, tmp_path: Path) -> None:
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    shutil.copytree(IMAGES, checkout / "fixtures" / "images", ignore=shutil.ignore_patterns("layout"))
    home.mkdir()
    shell = Shell(checkout, home)
    try:
        for step in (*BEFORE[name], *steps((ROOT / name).read_text())):
            if step.command.startswith("pip "):
                continue  # the package is installed already, where tests run
            assert shell.run(step) == normal(step.lines), step.command
    finally:
        shell.close()
