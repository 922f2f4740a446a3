"""The beginning of `ocitool.pyz`: unpack it once for each user, and run what is in it from there.

It holds extension modules, which can be loaded from a directory alone. As this runs before each command, what
the first start alone needs is loaded there.
"""

from __future__ import annotations

import os
import sys
from zipimport import zipimporter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _place(name: str) -> str:
    """Where the packages are, in the user's cache directory (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if cache.startswith("~"):
        _end("this user has no home directory: name a directory for its packages in XDG_CACHE_HOME")
    return os.path.join(cache, "ocitool", name)


def _unpack(archive: str, place: str) -> None:
    """Unpack the packages; whoever does that at the same time makes the same."""
    import compileall
    import shutil
    import tempfile
    import zipfile

    beside = os.path.dirname(place)
    try:
        os.makedirs(beside, 0o700, exist_ok=True)
        made = tempfile.mkdtemp(prefix=".new-", dir=beside)
        try:
            with zipfile.ZipFile(archive) as outer, zipfile.ZipFile(outer.open("packages.zip")) as packages:
                packages.extractall(made)
            compileall.compile_dir(made, quiet=2)
            os.rename(made, place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        if not os.path.isdir(place):  # somebody else was faster
            why = f"its packages can't be unpacked in {beside}: {error.strerror}"
            _end(f"{why}; name another directory in XDG_CACHE_HOME")


def _end(message: str) -> NoReturn:
    sys.exit(f"ocitool.pyz: {message}")


def _start() -> None:
    archive = os.path.dirname(os.path.abspath(__file__))
    name, *made_for = zipimporter(archive).get_data("made-for").decode().split()
    here = [sys.implementation.cache_tag, os.uname().machine]
    if made_for != here:
        _end(f"it is made for {' on '.join(made_for)}, and this is {' on '.join(here)}; `make pyz` makes one")
    place = _place(name)
    if not os.path.isdir(place):
        _unpack(archive, place)
    sys.path[0] = place
    from ocitool.__main__ import main

    main()


_start()
