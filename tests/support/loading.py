"""What a command loads, as the interpreter itself tells it (`-X importtime`)."""

from __future__ import annotations

# Each of these costs milliseconds, or brings in others that do.
SLOW = {
    "argparse", "array", "asyncio", "base64", "click", "collections", "contextlib", "ctypes", "dataclasses",
    "enum", "functools", "inspect", "json", "logging", "pathlib", "random", "re", "runpy", "select", "shutil",
    "signal", "socket", "struct", "subprocess", "tempfile", "threading", "traceback", "typing", "os",
}  # fmt: skip


def loaded(told: str) -> set[str]:
    """The modules in what `-X importtime` has written."""
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}
