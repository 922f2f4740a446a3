"""What a fresh interpreter has loaded after some code: the only honest way to know."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PROBE = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv.pop())
{code}
after = set(sys.modules) - before
import json
sys.__stdout__.write("\\n" + json.dumps(sorted(after)))
"""


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter loads for some code, beyond those that it starts with."""
    probe = [sys.executable, "-I", "-c", _PROBE.format(code=code), str(ROOT)]
    done = subprocess.run(probe, check=True, capture_output=True, text=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(modules)


def ours(modules: set[str]) -> set[str]:
    """The modules of the project."""
    return {name for name in modules if name.partition(".")[0] == "ocitool"}


def foreign(modules: set[str]) -> set[str]:
    """The packages that are neither the project's nor the standard library's."""
    packages = {name.partition(".")[0] for name in modules}
    return packages - {"ocitool"} - set(sys.stdlib_module_names) - set(sys.builtin_module_names)


def modules_below(package: str) -> list[str]:
    """Every module of the project's package, by its dotted name."""
    root = ROOT / package.replace(".", "/")
    files = sorted(root.rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]
