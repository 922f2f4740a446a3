"""An image that was run before: found again without its documents, and run by the command's own process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command import Ocitool
from support.imports import ROOT, foreign, ours
from support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.peers]
HERE = "import sys; from ocitool.__main__ import main; main()"


@pytest.fixture
def home(tmp_path: Path) -> Ocitool:
    if os.geteuid() != 0:
        pytest.skip("needs root, to look at processes that are not dumpable")
    return Ocitool(tmp_path)


@pytest.fixture
def image(home: Ocitool, busybox_image: str) -> str:
    """An image that is ready, in a layout that a test may change."""
    shutil.copytree(busybox_image.removeprefix("oci:").removesuffix(":1"), home.home / "image")
    return make_ready(home, "oci:image:1")


def make_ready(home: Ocitool, image: str) -> str:
    """Run an image until its name is remembered, which it is not where its layout has just changed."""

    def is_remembered() -> bool:
        home("run", image, "true")
        names = home.home / "store.prepared-0" / "names.json"
        return names.exists() and image in names.read_text()

    until(is_remembered)
    return image


def started(home: Ocitool, *words: str, **settings: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HERE, "run", *words]
    return subprocess.Popen(
        command, env=home.environment, cwd=home.home, text=True, stdout=subprocess.PIPE, **settings
    )


def traced(home: Ocitool, *words: str) -> list[str]:
    """The calls of a run and of its processes."""
    trace = home.home / "trace"
    command = ["strace", "-f", "-s", "4096", "-o", str(trace), sys.executable, "-c", HERE, "run", *words]
    subprocess.run(command, env=home.environment, cwd=home.home, check=True, stdin=subprocess.DEVNULL)
    return trace.read_text().splitlines()


def opened(lines: list[str]) -> set[str]:
    calls = [line for line in lines if re.search(r"\b(open|openat|openat2|execve)\(", line)]
    return {path for line in calls for path in re.findall(r'"([^"]*)"', line)}


@pytest.mark.parametrize("what", ["image", "bundle"])
def test_the_program_is_the_commands_own_child(home: Ocitool, image: str, what: str) -> None:
    home("unpack", image, "bundle")
    location = {"image": image, "bundle": "./bundle"}[what]
    with started(
        home, "-i", location, "sh", "-c", "echo ready; read line; exit 7", stdin=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert [Path(f"/proc/{child}/exe").readlink().name for child in children] == ["busybox"]
        run.communicate("\n", timeout=20)
    assert run.returncode == 7
    assert list((home.home / "containers").iterdir()) == []


def test_no_document_of_the_layout_is_read_and_one_program_is_started(home: Ocitool, image: str) -> None:
    lines = traced(home, image, "true")
    assert [path for path in opened(lines) if "image/" in path] == [f"{home.home}/image/index.json"]
    # Two processes become programs: this one, and its child. Calls of several at a time have two lines each.
    became = re.compile(r" (execve(at)?\(|<\.\.\. execve(at)? resumed>).*= 0$")
    assert len({line.split()[0] for line in lines if became.search(line)}) == 2


def test_the_modules_on_the_way_are_few_and_none_is_slow(home: Ocitool, image: str) -> None:
    probe = (
        "import sys, os; from ocitool.__main__ import main\n"
        "def told(code): os.write(2, repr(sorted(sys.modules)).encode()); end(code)\n"
        "end, os._exit = os._exit, told\n"
        "main()"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {probe}"]
    bare = [sys.executable, "-I", "-S", "-c", "import sys, os; sys.stderr.write(repr(sorted(sys.modules)))"]
    loaded, before = (
        set(json.loads(done.stderr.replace("'", '"')))
        for done in (
            subprocess.run(
                words, env=home.environment, cwd=home.home, check=True, capture_output=True, text=True
            )
            for words in ([*command, "run", image, "true"], bare)
        )
    )
    assert foreign(loaded) == {"__main__"}
    assert loaded - before - ours(loaded) <= {
        "__future__", "_ctypes", "_json", "atexit", "encodings.ascii", "fcntl", "gc",
    }  # fmt: skip
    # A container of somebody else's may just have had another profile, so that ours is compiled again.
    compiler = {"ocitool.run.seccomp", "ocitool.run.syscalls"}
    assert len(ours(loaded) - compiler) <= 50


def test_rn_02_nothing_is_loaded_between_the_change_of_root_and_the_program(
    home: Ocitool, image: str
) -> None:
    lines = traced(home, image, "true")
    start = next(at for at, line in enumerate(lines) if "pivot_root(" in line)
    child = lines[start].split()[0]
    after = [line for line in lines[start:] if line.startswith(child)]
    end = next(at for at, line in enumerate(after) if "execveat(" in line)
    assert opened(after[:end]) <= {"/", "self/setgroups"}


def test_rn_03_the_program_has_only_the_standard_descriptors(home: Ocitool, image: str) -> None:
    leaked = os.open("/", os.O_RDONLY)
    try:
        with started(home, image, "ls", "/proc/self/fd", pass_fds=[leaked]) as run:
            out, _ = run.communicate(timeout=120)
    finally:
        os.close(leaked)
    assert out.split() == ["0", "1", "2", "3"]  # the last one is of `ls` itself


def test_signals_are_the_programs_and_its_answer_is_the_exit_code(home: Ocitool, image: str) -> None:
    program = 'trap "echo ended; exit 9" TERM; echo ready; sleep 60 & wait'
    with started(home, image, "sh", "-c", program) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        run.terminate()
        assert run.communicate(timeout=120)[0] == "ended\n"
    assert run.returncode == 9
    assert list((home.home / "containers").iterdir()) == []


def test_a_program_that_is_not_there_is_told_in_a_sentence(home: Ocitool, image: str) -> None:
    done = home("run", image, "not-a-program", code=127)
    assert done.err == 'ocitool: exec "not-a-program": executable file not found in $PATH\n'
    assert "relative" in home("run", "--workdir", "relative", image, "true", code=125).err
    assert list((home.home / "containers").iterdir()) == []


def test_the_image_that_a_name_moves_to_is_the_one_that_runs(home: Ocitool, image: str) -> None:
    home("unpack", image, "bundle")
    (home.home / "bundle/rootfs/new").write_text("new\n")
    home("repack", image, "bundle", "1")
    assert home("run", image, "cat", "/new").out == "new\n"


def test_a_layout_that_is_gone_is_not_remembered(home: Ocitool, image: str) -> None:
    shutil.rmtree(home.home / "image")
    home("run", image, "true", code=125)


def test_what_gc_has_removed_is_unpacked_again(home: Ocitool, image: str) -> None:
    home("store", "gc", "--delete")
    assert not (home.home / "store.prepared-0" / "names.json").exists()
    home("run", image, "true")
    shutil.rmtree(next((home.home / "store.prepared-0").glob("sha256-*")))
    home("run", image, "true")


def test_options_that_take_the_long_way_do_what_they_did(home: Ocitool, image: str) -> None:
    assert home("run", "-u", "alice", image, "id", "-u").out == "1234\n"
    assert home("run", "--pull", "always", image, "id", "-u").out == "0\n"
    assert "exclude each other" in home("run", "--rm", "--keep", image, "true", code=125).err
    assert "Usage:" in home("run", "--help").out
    assert "No such option" in home("run", "--nonsense", image, code=125).err


def test_variables_that_are_options_count(home: Ocitool, image: str) -> None:
    command = [sys.executable, "-c", HERE, "run", image, "sh", "-c", "pwd; hostname"]
    environment = {**home.environment, "OCITOOL_RUN_WORKDIR": "/bin", "OCITOOL_RUN_HOSTNAME": "given"}
    done = subprocess.run(command, env=environment, cwd=home.home, check=True, capture_output=True, text=True)
    assert done.stdout == "/bin\ngiven\n"
