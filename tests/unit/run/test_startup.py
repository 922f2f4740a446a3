"""The runtime's start is a feature: what it loads is counted."""

from __future__ import annotations

import json
import subprocess

from support.loading import SLOW
from support.run_bundles import MAIN, PYTHON

PROBE = f"""
import sys
sys.path.append({MAIN.rsplit("/", 3)[0]!r})
import ocitool.run.commands, ocitool.run.runtime, ocitool.run.waiting, ocitool.run.seccomp
sys.stdout.write(repr(sorted(sys.modules)))
"""


def test_a_run_loads_few_modules_and_none_that_is_slow() -> None:
    done = subprocess.run([PYTHON, "-I", "-S", "-c", PROBE], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert loaded & SLOW == set()
    assert len(loaded) <= 60


def test_the_package_itself_loads_nothing() -> None:
    script = PROBE.replace(
        "ocitool.run.commands, ocitool.run.runtime, ocitool.run.waiting, ocitool.run.seccomp", "ocitool.run"
    )
    done = subprocess.run([PYTHON, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert {name for name in json.loads(done.stdout.replace("'", '"')) if name.startswith("ocitool.")} == {
        "ocitool.run"
    }


def test_rn_02_what_has_left_the_host_loads_nothing_more() -> None:
    """A module that was forgotten would come from the container's files, and now comes from nowhere."""
    first = PROBE.partition("import ocitool")[0]
    script = f"{first}from ocitool.run import _init\n_init.leave_the_host()\nimport colorsys\n"
    done = subprocess.run([PYTHON, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'colorsys'"
