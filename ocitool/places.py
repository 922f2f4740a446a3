"""Where ocitool keeps things, and what belongs to the user."""

from __future__ import annotations

import os

from ocitool.errors import OciError

STORE_HINT = "name another place with --store, or in OCITOOL_STORE"
"""What helps where nothing can be kept at the user's place."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def home(environ: Mapping[str, str] = os.environ) -> str:
    """The user's home directory: $HOME, else what the system says; "" for none that may be entered."""
    at = environ.get("HOME") or _home_of_record()
    try:
        os.stat(f"{at}/.")
    except PermissionError:
        return ""  # as root's, which images name, for the number that a CI system has made up
    except OSError:
        pass  # whoever needs it says so
    return at


def _home_of_record() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def local_store() -> str:
    """Where pulled images are kept: $OCITOOL_STORE, else the user's data directory (XDG).

    Raises:
        OciError: the user has no home directory.
    """
    chosen = os.environ.get("OCITOOL_STORE")
    return chosen or _below_home("XDG_DATA_HOME", ".local/share", "ocitool/store", hint=STORE_HINT)


def mirror_state() -> str:
    """Where `mirror` keeps counts and manifests between runs: in the user's state directory (XDG).

    Raises:
        OciError: the user has no home directory.
    """
    hint = "name a directory with --state"
    return _below_home("XDG_STATE_HOME", ".local/state", "ocitool/mirror", hint=hint)


def _below_home(variable: str, directory: str, name: str, *, hint: str) -> str:
    if chosen := os.environ.get(variable):
        return f"{chosen}/{name}"
    if not (at := home()):
        raise OciError("this user has no home directory, or may not enter it", hint=hint)
    return f"{at}/{directory}/{name}"
