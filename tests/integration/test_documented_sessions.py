"""What the documents show is what happens: every command of a session, and every line that it prints."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from support.documents import Shell, Step, files, normal, steps
from support.fixtures import IMAGES, layout
from support.ordinary import NOBODY
from support.peers import call, require_root

from ocitool.unpack.removal import discard

ROOT = Path(__file__).parents[2]

# What a guide takes for granted is made first.
BEFORE = {
    "README.md": (),
    "docs/tutorial/first-image.md": (),
    "docs/how-to/change-an-image.md": (
        Step("python3 fixtures/images/build.py images", ("images",)),
        Step("ocitool --quiet copy oci:images:layers:1.0 oci:image:1 >/dev/null", ()),
    ),
    "docs/how-to/choose-platforms.md": (
        Step("python3 fixtures/images/build.py images", ("images",)),
        Step("ocitool --quiet copy oci:images:hello:1.0 oci:hello:1.0 >/dev/null", ()),
    ),
    "docs/how-to/sign-and-verify.md": (Step("python3 fixtures/images/build.py images", ("images",)),),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_session_goes_as_the_document_shows_it(name: str, tmp_path: Path) -> None:
    checkout, home = tmp_path / "checkout", tmp_path / "home"
    shutil.copytree(IMAGES, checkout / "fixtures" / "images", ignore=shutil.ignore_patterns("layout"))
    home.mkdir()
    shell = Shell(checkout, home)
    document = (ROOT / name).read_text()
    try:
        for file, text in files(document):
            shell.write(checkout / file, text)
        for step in (*BEFORE[name], *steps(document)):
            assert shell.run(step) == normal(step.lines), step.command
    finally:
        shell.close()


def test_the_line_for_completions_is_one_that_completes(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(eval [^`]*_source ocitool\)\")`", (ROOT / "README.md").read_text())
    asked = (
        'COMP_WORDS=(ocitool mirror pl); COMP_CWORD=2; _ocitool_completion ocitool pl; echo "${COMPREPLY[@]}"'
    )
    shell = Shell(tmp_path, tmp_path)
    try:
        assert shell.run(Step(line, ())) == []
        assert shell.run(Step("complete -p ocitool", ())) == [
            "complete -o nosort -F _ocitool_completion ocitool"
        ]
        assert shell.run(Step(asked, ())) == ["plan"]
    finally:
        shell.close()


def test_a_session_without_root_goes_as_the_document_shows_it() -> None:
    require_root()  # to become somebody who is not
    directory = Path(tempfile.mkdtemp())  # below no directory of pytest's, which only root may enter
    try:
        shutil.copytree(layout(), directory / "images")
        call("chown", "-R", str(NOBODY), directory)
        shell = Shell(directory, directory, as_nobody=True)
        try:
            assert (
                shell.run(Step("ocitool --quiet copy oci:images:layers:1.0 oci:image >/dev/null", ())) == []
            )
            for step in steps((ROOT / "docs/how-to/unpack-without-root.md").read_text()):
                assert shell.run(step) == normal(step.lines), step.command
        finally:
            shell.close()
    finally:
        discard(directory)
