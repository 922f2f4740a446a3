"""Starting programs as an ordinary user from tests that run as root.

The interpreter and the checkout may lie below directories that only root can enter (a home, say). The program
then gets a private mount namespace in which just those two are reachable, at the same paths.
"""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

NOBODY = 65534
# Shell: ids for `nobody`, from files in the directory "$1"; for a mount namespace of one's own.
DELEGATE = """
for name in subuid subgid; do
    echo nobody:700000:65536 >"$1/$name"
    mount --bind "$1/$name" "/etc/$name"
done
"""
UNKNOWN = 12345
"""As CI systems start containers: a number of which the system knows neither name nor home."""
_CHECKOUT = Path(__file__).parents[2]


def command(*program: str, user: int = NOBODY) -> list[str]:
    """The command line with which root starts a program as somebody without groups or privileges."""
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), _CHECKOUT}
    hidden = {path: gate for path in needed if (gate := _gate(path))}
    lines = ["set -e", "hold=$(mktemp -d)"]
    for number, path in enumerate(hidden):
        lines += [f"mkdir $hold/{number}", f"mount --rbind {shlex.quote(str(path))} $hold/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(gate))}" for gate in set(hidden.values())]
    for number, path in enumerate(hidden):
        quoted = shlex.quote(str(path))
        lines += [f"mkdir -p {quoted}", f"mount --move $hold/{number} {quoted}", f"rmdir $hold/{number}"]
    lines += ["rmdir $hold", f'exec setpriv --reuid={user} --regid={user} --clear-groups -- "$@"']
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(lines), "sh", *program]


def _gate(path: Path) -> Path | None:
    """The topmost directory above a path that others may not enter."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None
