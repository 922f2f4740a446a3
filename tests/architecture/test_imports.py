"""What loads what: start-up time is a feature, and so is a core that needs nothing but Python."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import fixtures
from support.imports import ROOT, foreign, loaded_by, modules_below, ours

HEAVY = {"httpx", "tqdm", "zstandard", "cryptography", "uvicorn", "isal"}
CORE = [
    *(
        "errors",
        "limits",
        "defaults",
        "digest",
        "platforms",
        "mediatypes",
        "strictjson",
        "jsontypes",
        "streams",
        "reference",
        "digesttags",
    ),
    *("model", "compression", "events", "content", "selection", "memory", "workers", "graph", "transfer"),
]
FRONT = ("ocitool.__main__", "ocitool.cli", "ocitool.console", "ocitool.run")


def test_importing_ocitool_loads_nothing_but_itself() -> None:
    assert loaded_by("import ocitool") == {"ocitool"}


def test_importing_the_runtime_loads_nothing_of_ours_but_errors() -> None:
    loaded = loaded_by("import ocitool.run")
    assert ours(loaded) <= {"ocitool", "ocitool.run", "ocitool.errors"}
    assert foreign(loaded) == set()


def test_all_of_the_runtime_sees_only_errors_defaults_and_the_standard_library() -> None:
    modules = [name for name in modules_below("ocitool.run") if not name.rpartition(".")[2].startswith("_")]
    loaded = loaded_by("\n".join(f"import {name}" for name in modules))
    assert {name for name in ours(loaded) if not name.startswith("ocitool.run")} <= {
        "ocitool",
        "ocitool.defaults",
        "ocitool.errors",
    }
    assert foreign(loaded) == set()


@pytest.mark.parametrize("module", CORE)
def test_the_core_needs_nothing_but_the_standard_library(module: str) -> None:
    loaded = loaded_by(f"import ocitool.{module}")
    assert foreign(loaded) == set()
    assert ours(loaded) <= {"ocitool", *(f"ocitool.{name}" for name in CORE)}


@pytest.mark.parametrize("module", ["ocitool.cli", "ocitool.__main__"])
def test_the_command_line_loads_heavy_libraries_only_where_they_are_used(module: str) -> None:
    assert not foreign(loaded_by(f"import {module}")) & HEAVY


def test_the_registry_client_loads_no_command_line_of_others() -> None:
    assert not foreign(loaded_by("import ocitool.registry")) & {"rich", "pygments", "click"}
    # Whoever wants it finds it as if we were not there.
    assert "httpx._main" in loaded_by("import ocitool.registry, httpx._main")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["pull", "--help"], ["run", "--help"]])
def test_asking_for_help_loads_no_heavy_library(arguments: list[str]) -> None:
    code = f"""
import contextlib, io
from ocitool.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main({arguments!r}) == 0
"""
    loaded = loaded_by(code)
    assert not foreign(loaded) & HEAVY
    assert foreign(loaded) <= {"click"}


def test_unpacking_from_a_layout_loads_nothing_that_pulls_or_runs(tmp_path: Path) -> None:
    image = f"oci:{fixtures.layout()}:layers:1.0"
    code = f"""
from ocitool.cli import main
assert main(["unpack", {image!r}, {str(tmp_path / "bundle")!r}]) == 0
"""
    loaded = loaded_by(code)
    assert "ocitool.unpack.apply" in loaded
    assert not loaded & {"ocitool.pulling", "ocitool.transfer", "ocitool.run.options", "concurrent.futures"}


def test_start_up_stays_within_its_budget() -> None:
    # Processor time and not the clock's, and the best of several: the machine may be busy.
    bare = min(_seconds("-c", "pass") for _ in range(5))
    version = min(_seconds("-m", "ocitool", "--version") for _ in range(5))
    assert version - bare < 0.12


def _seconds(*arguments: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def _calls(module: str) -> set[str]:
    path = ROOT / module.replace(".", "/")
    source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    nodes = ast.walk(ast.parse(source.read_bytes()))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


@pytest.mark.parametrize("module", [name for name in modules_below("ocitool") if not name.startswith(FRONT)])
def test_the_library_neither_prints_nor_ends_the_process(module: str) -> None:
    forbidden = {"print", "input", "exit", "quit", "sys.exit", "os._exit", "os.abort"}
    assert not _calls(module) & forbidden


@pytest.mark.parametrize("module", CORE)
def test_the_core_speaks_only_through_events_and_errors(module: str) -> None:
    spoken = ("sys.stdout.", "sys.stderr.", "logging.", "warnings.")
    assert not {call for call in _calls(f"ocitool.{module}") if call.startswith(spoken)}
