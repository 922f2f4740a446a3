"""Files that `ocitool run` reads and writes for its caller, and what comes through of a program's streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Ocitool
from support.peers import require, require_root
from support.waiting import until

pytestmark = pytest.mark.peers

SAYS = ("--", "sh", "-c", "cat; echo out; echo err >&2")


@pytest.fixture(params=["root", "ordinary"])
def anyone(request: pytest.FixtureRequest, ordinary_home: Path) -> Ocitool:
    """The command line as root, and as an ordinary user to whom no ids are delegated."""
    return Ocitool(ordinary_home, ordinary=request.param == "ordinary")


def test_the_id_is_in_its_file_while_the_program_runs_and_afterwards(
    anyone: Ocitool, busybox_image: str
) -> None:
    words = ("--cidfile", "given/id", "-v", "./given:/given", busybox_image, "cat", "/given/id")
    (anyone.home / "given").mkdir()
    (anyone.home / "given").chmod(0o777)
    assert anyone("run", "--name", "box", *words).out == "box"
    (anyone.home / "given/id").unlink()
    random = anyone("run", *words).out
    assert random.startswith("ocitool-")
    assert (anyone.home / "given/id").read_text() == random


def test_a_file_of_an_id_is_never_written_twice(anyone: Ocitool, busybox_image: str) -> None:
    (anyone.home / "id").write_text("another")
    done = anyone("run", "--cidfile", "id", busybox_image, "echo", "started", code=125)
    assert (done.out, (anyone.home / "id").read_text()) == ("", "another")
    assert "--cidfile id exists" in done.err
    assert "can't be written" in anyone("run", "--cidfile", "not/there", busybox_image, code=125).err


def test_without_a_container_there_is_no_file_of_its_id(anyone: Ocitool, busybox_image: str) -> None:
    for words in (("--name", "a/b", busybox_image), ("oci:nowhere:1",), ("--umask", "9", busybox_image)):
        anyone("run", "--cidfile", "id", *words, "true", code=125)
        assert not (anyone.home / "id").exists()
    anyone("run", "--cidfile", "id", busybox_image, "/not/there", code=127)
    assert (anyone.home / "id").read_text()


@pytest.mark.root
@pytest.mark.parametrize("how", [(), ("--runtime", "runc"), ("--isolation", "chroot")])
def test_the_number_of_the_first_process_is_written(
    ocitool: Ocitool, busybox_image: str, how: tuple[str, ...]
) -> None:
    require_root()
    require("runc")
    words = ("-m", "ocitool", "run", *how, "--pidfile", "pid", "-i", busybox_image)
    script = "echo started; read -r line; exit 3"
    with subprocess.Popen(
        [sys.executable, *words, "--", "sh", "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ocitool.environment, cwd=ocitool.home,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        file = ocitool.home / "pid"
        pid = int(until(lambda: file.exists() and file.read_text()))  # at about the same time
        assert script in Path(f"/proc/{pid}/cmdline").read_text()
        run.communicate("go on\n")
    assert run.returncode == 3


def test_labels_of_files_come_before_those_of_the_command_line(ocitool: Ocitool, busybox_image: str) -> None:
    (ocitool.home / "labels").write_text("# a comment\n\n  a=b c\nd\ne=file\n")
    words = ("--keep", "--name", "labelled", "--label-file", "labels", "-l", "e=line")
    ocitool("run", *words, busybox_image, "true")
    config = json.loads((ocitool.home / "containers/labelled/config.json").read_text(encoding="utf-8"))
    assert {"a": "b c", "d": "", "e": "line"}.items() <= config["annotations"].items()
    (ocitool.home / "labels").write_text("a b=c\n")
    wrong = ocitool("run", "--label-file", "labels", busybox_image, code=125).err
    assert "--label-file labels: 'a b=c' has no name at its start" in wrong


@pytest.mark.parametrize(
    ("attached", "out", "err"),
    [
        ((), "in\nout\n", "err\n"),
        (("stdout",), "in\nout\n", ""),
        (("STDERR",), "", "err\n"),
        (("stdin",), "", ""),
        (("stdin", "stdout"), "in\nout\n", ""),
    ],
)
def test_output_that_is_not_attached_is_not_seen(
    anyone: Ocitool, busybox_image: str, attached: tuple[str, ...], out: str, err: str
) -> None:
    words = [word for stream in attached for word in ("-a", stream)]
    done = anyone("run", "-i", *words, busybox_image, *SAYS, stdin="in\n")
    assert (done.out, done.err) == (out, err)


def test_input_is_not_attached_without_its_own_option(anyone: Ocitool, busybox_image: str) -> None:
    done = anyone("run", "-a", "stdin", "-a", "stdout", busybox_image, *SAYS, stdin="in\n")
    assert (done.out, done.err) == ("out\n", "")


def test_what_goes_wrong_is_told_whatever_is_attached(anyone: Ocitool, busybox_image: str) -> None:
    done = anyone("run", "--attach", "stdin", busybox_image, "/not/there", code=127)
    assert "/not/there" in done.err
    assert "not stdin, stdout or stderr" in anyone("run", "-a", "all", busybox_image, code=125).err


def test_the_images_own_hosts_are_kept_where_that_is_asked_for(anyone: Ocitool, busybox_image: str) -> None:
    script = "cat /etc/hosts || cat /etc/hostname"
    done = anyone("run", "--no-hosts", busybox_image, "--", "sh", "-c", script)
    assert (done.out, "No such file" in done.err) == ("ocitool\n", True)
    words = ("--no-hosts", "--add-host", "a:192.0.2.9")
    assert "exclude each other" in anyone("run", *words, busybox_image, code=125).err


def test_variables_of_the_caller_and_of_the_image(anyone: Ocitool, busybox_image: str) -> None:
    said = anyone("run", "--env-host", busybox_image, "env").out.splitlines()
    assert f"OCITOOL_STORE={anyone.home}/store" in said
    assert f"PATH={os.environ['PATH']}" not in said  # the image's own is kept
    words = ("--unsetenv", "PATH", "--unsetenv", "HOSTNAME", "-e", "HOSTNAME=given", busybox_image)
    said = anyone("run", *words, "/bin/env").out.splitlines()
    assert [line for line in said if line.startswith(("PATH=", "HOSTNAME="))] == ["HOSTNAME=given"]
    said = anyone("run", "--unsetenv-all", "-e", "A=b", busybox_image, "/bin/env").out.splitlines()
    assert sorted(line for line in said if not line.startswith("HOME=")) == ["A=b"]
