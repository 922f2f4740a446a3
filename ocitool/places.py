"""Where ocitool keeps things."""

from __future__ import annotations

import os

from ocitool.errors import OciError


def local_store() -> str:
    """Where pulled images are kept: $OCITOOL_STORE, else the user's data directory (XDG).

    Raises:
        OciError: the user has no home directory.
    """
    if chosen := os.environ.get("OCITOOL_STORE"):
        return chosen
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    if data.startswith("~"):
        raise OciError("this user has no home directory", hint="set OCITOOL_STORE")
    return f"{data}/ocitool/store"
